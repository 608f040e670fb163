"""GRJCA (8th ABAW, 2025, second place): face and voice, a gate that weighs the recursion's steps.

    maven-jax train --config grjca:valence --config.data.store=stores/rjcma --workdir runs/grjca_v

Variants: those of `rjcma`. Temporal models, head and training are those of `rjcma` too; the fusion
follows the authors' public code: two modalities, each frame's features of length one, the dense
form of joint correlation with a layer for its queries, two steps. `maven-jax convert --model grjca`
reads weights of that code. Words may join: `--config.data.modalities=visual,audio,text`.
Published for GRJCA and HGRJCA together (valence / arousal / mean CCC): test .561 / .620 / .591,
cross-validation fold 1 .623 / .660 / .642.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "both") -> ConfigDict:
    c = recipes.load(f"rjcma:{arg or 'both'}")
    c.data.modalities = ("visual", "audio")
    c.model.update(
        name="grjca",
        correlation="dense",
        num_steps=2,
        joint="concat",
        query="linear",
        correlation_dropout_rate=0.6,
    )
    c.model.gate_temperature = 0.1
    c.model.unit_length = True
    return c
