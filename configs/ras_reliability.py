"""RAS's reliability-aware fusion (10th ABAW, 2026, first place), on any store's features.

    maven-jax train --config ras_reliability --config.data.store=STORE --workdir runs/ras

A transformer over the frames of each modality (five layers, 256 wide, eight heads, windows of 400),
and at every frame a share for each modality: how far it can be trusted there. As in RAS: valence
weighs .7 and arousal .3, CCC with a little MSE, an average of the weights at .998, windows blended
by their middles, box filters of 7 and 13 frames. Its own encoders, an EfficientNet-B1 trained on
affect, WavLM-large and a vision-language model, are yours to bring. Where the store has them,
expressions and action units are learned beside (the weight of .1 is ours).
`ras_experts`, `ras_speech` and `ras_descriptions` add its other ideas.
Published for all of RAS (valence / arousal / mean CCC): official validation .608 / .707 / .658,
test mean .62.
Needs: one GPU with 16 GB or more. Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    recipes.check_arg(arg, ("",))
    c = recipes.load("temporal:transformer")
    c.model = dict(
        name="ras",
        temporal={"*": "transformer"},
        num_layers={"*": 5},
        embed_dim=256,
        num_heads=8,
        kernel_size=4,
        dropout_rate=0.2,
        gated_by={},
        experts=False,
        expert_dim=256,
        head_dims=(128,),
        head_dropout_rate=0.2,
        head="va",
        dtype="float32",
    )
    c.loss.update(extra_targets=("*",), extra_weights=(0.1,))
    return c
