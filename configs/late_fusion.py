"""Late fusion: a temporal model and a head per modality, their predictions averaged.

    maven-jax train --config late_fusion:tcn --config.data.store=stores/rjcma --workdir runs/late

Variants: `:tcn`, `:centred_tcn` (which sees later frames too), `:blstm`. Only the model differs
from `rjcma`: this is what joint correlation has to beat. Not trained on Aff-Wild2 by us yet: no
score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "tcn") -> ConfigDict:
    temporal = recipes.check_arg(arg or "tcn", ("tcn", "centred_tcn", "blstm"))
    c = recipes.load("rjcma:both")
    c.model = dict(
        name="late_fusion",
        temporal=temporal,
        channels=c.model.channels,
        kernel_size=5,
        temporal_dropout_rate=0.1,
        head_dims=(256,),
        head_dropout_rate=0.2,
        head="va",
        dtype="float32",
    )
    return c
