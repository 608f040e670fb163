"""HGRJCA (8th ABAW, 2025, second place): a gate behind every step of the recursion, one over them.

    maven-jax train --config hgrjca:valence --config.data.store=stores/rjcma --workdir runs/hgrjca_v

Variants and everything but the gates are those of `grjca`, which has the published scores. The
first step's gate chooses between two features, the second's among three, as in the authors' code;
`maven-jax convert --model hgrjca` reads weights of it.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "both") -> ConfigDict:
    c = recipes.load(f"grjca:{arg or 'both'}")
    c.model.name = "hgrjca"
    return c
