"""RAS's audio that counts only where somebody speaks (10th ABAW, 2026).

    maven-jax train --config ras_speech --config.data.store=STORE --workdir runs/ras_speech

Sound counts as observed only at frames at which the store has words. RAS looks whether the mouth is
open: with a modality `mouth` in the store that is observed where it is,
`model.gated_by.audio=mouth` does that. Everything else is that of `ras_reliability`.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    c = recipes.load(f"ras_reliability:{arg}")
    c.model.gated_by = dict(audio="text")
    return c
