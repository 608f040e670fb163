"""LFAN (2nd and 3rd ABAW): leader-follower attention, the framework that RJCMA grew out of.

    maven-jax train --config lfan --config.data.store=stores/rjcma --workdir runs/lfan

Variants: "" (2nd ABAW, 2021: one head), `:abaw3` (3rd ABAW, 2022: two heads and an output layer,
BatchNorm behind the temporal models, tanh). Only the model differs from `rjcma`. The face leads; at
each frame all modalities attend to one another, and one linear layer predicts both dimensions.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    variant = recipes.check_arg(arg, ("", "abaw3"))
    c = recipes.load("rjcma:both")
    c.model = dict(
        name="lfan",
        temporal="tcn",
        channels=c.model.channels,
        kernel_size=5,
        temporal_dropout_rate=0.1,
        leader="visual",
        attention_dim=32,
        dtype="float32",
    )
    if variant:
        c.model.update(name="lfan_abaw3")
        c.model.num_heads, c.model.dropout_rate = 2, 0.1
    return c
