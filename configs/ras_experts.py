"""RAS's directed cross-modal mixture of experts (10th ABAW, 2026), before its fusion.

    maven-jax train --config ras_experts --config.data.store=STORE --workdir runs/ras_experts

An expert for every ordered pair of modalities and a router per modality; everything else is that of
`ras_reliability`, which has the published scores.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    c = recipes.load(f"ras_reliability:{arg}")
    c.model.experts = True
    return c
