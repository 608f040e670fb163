"""HGRJCA (8th ABAW, 2025, second place): a gate at every step of the recursion, then one over them.

    maven-jax train --config hgrjca --config.data.store=stores/rjcma --workdir runs/hgrjca

Variants and everything else are those of `rjcma`; `grjca` has the published scores.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "both") -> ConfigDict:
    c = recipes.load(f"rjcma:{arg or 'both'}")
    c.model.name = "hgrjca"
    c.model.gate_temperature = 0.1
    return c
