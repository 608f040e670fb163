"""LFAN (2nd ABAW, 2021): leader-follower attention, the framework that RJCMA grew out of.

    maven-jax train --config lfan --config.data.store=stores/rjcma --workdir runs/lfan

Only the model differs from `rjcma`. The face leads; at each frame all modalities attend to one
another, and one linear layer predicts both dimensions.
Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    recipes.check_arg(arg, ("",))
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
    return c
