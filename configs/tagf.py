"""TAGF (Lee et al., 2025): RJCMA's recursion, with a BLSTM that weighs its steps.

    maven-jax train --config tagf --config.data.store=stores/rjcma --workdir runs/tagf

Variants and everything else are those of `rjcma`. Not trained on Aff-Wild2 by us yet: no score is
claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "both") -> ConfigDict:
    c = recipes.load(f"rjcma:{arg or 'both'}")
    c.model.name = "tagf"
    c.model.gate_dim = 128
    return c
