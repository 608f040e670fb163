"""What any model on Aff-Wild2 has to beat.

    maven-jax train --config baseline:concat --config.data.store=STORE --workdir runs/concat

Variants: `:concat`, the projected modalities side by side and an MLP on each frame by itself;
`:mean`, the training mean for every frame, which scores 0.
For comparison (valence / arousal / mean CCC, validation): the ABAW organisers' ResNet-50 has
.240 / .200 / .220.
Needs: a CPU is enough. Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "concat") -> ConfigDict:
    variant = recipes.check_arg(arg or "concat", ("concat", "mean"))
    c = recipes.common()
    c.data.store = "stores/affwild2"
    c.inputs.standardize = "store"
    if variant == "concat":
        c.model = dict(
            name="concat_mlp",
            embed_dim=512,
            hidden_dims=(512, 256),
            dropout_rate=0.3,
            head="va",
            dtype="float32",
        )
    else:
        c.model = dict(name="constant_mean")
    c.loss.terms = dict(ccc_batch=1.0)
    c.optimizer.update(
        name="adamw",
        learning_rate=1e-4,
        schedule_kind="cosine",
        warmup_epochs=1.0,
        weight_decay=1e-2,
    )
    c.train.update(batch_size=16, num_epochs=30.0)
    c.train.plateau.stop_patience = 8
    c.eval.update(batch_size=32, hop=100)
    return c
