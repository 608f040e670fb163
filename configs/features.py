"""A small MAVEN on features made elsewhere (`maven-jax prepare --features DIR ...`).

    maven-jax train --config features --config.data.store=STORE --workdir runs/mine

Takes every modality of the store, whatever its name and width, unless
`--config.data.modalities=a,b` picks some. The sizes suit a few dozen videos: about 2 million
parameters, dropout, early stop. `data.window` counts frames of the annotation: at 10 Hz,
`--config.data.window.length=100` is ten seconds.
Variants: `:concat` (the modalities side by side and an MLP), `:mean` (the training mean: CCC 0).
Hardware: 2 CPU cores, minutes for a few dozen videos. Expected: depends on the features.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    recipes.check_arg(arg, ("", "concat", "mean"))
    c = recipes.common()
    c.data.store = "stores/features"
    c.data.modalities = ()  # all that the store has
    c.data.window.update(length=100, hop=50)
    c.data.num_threads = 2
    c.inputs.update(standardize="store", modality_dropout=0.1)
    if arg == "concat":
        c.model = dict(
            name="concat_mlp",
            embed_dim=128,
            hidden_dims=(256, 128),
            dropout_rate=0.3,
            head="va",
            dtype="float32",
        )
    elif arg == "mean":
        c.model = dict(name="constant_mean")
    else:
        c.model = dict(
            name="maven",
            embed_dim=128,
            num_heads=2,
            dropout_rate=0.2,
            shared_norm=True,
            refine_dim=192,
            num_stacks=2,
            beit_layers=1,
            beit_heads=4,
            beit_mlp_dim=384,
            layer_scale_init=0.1,
            relative_position="1d",
            beit_dropout_rate=0.2,
            stochastic_depth_rate=0.0,
            remat=False,
            head_dims=(128, 64),
            head_dropout_rate=0.3,
            head="polar",
            readout="frame",
            dtype="float32",
        )
    c.loss.terms = dict(ccc_batch=1.0, mse=0.5)
    c.optimizer.update(
        name="adamw",
        learning_rate=5e-4,
        schedule_kind="cosine",
        warmup_epochs=1.0,
        weight_decay=5e-2,
    )
    c.train.update(batch_size=16, num_epochs=40.0, eval_every_epochs=2.0, log_every_steps=20)
    c.train.plateau.update(min_scale=1e-3, stop_patience=6)
    c.eval.update(batch_size=16, hop=25)
    c.checkpoint.every_steps = 500
    return c
