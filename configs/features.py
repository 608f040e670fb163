"""A small MAVEN on features made elsewhere (`maven-jax prepare --features DIR ...`).

    maven-jax train --config features --config.data.store=STORE --workdir runs/mine

Takes every modality of the store, whatever their names and widths, unless
`--config.data.modalities=a,b` picks some. The sizes suit a few dozen videos: about 2 million
parameters, dropout, early stop. `data.window` counts in frames of the annotation: for annotations
at 10 Hz, `--config.data.window.length=100` is ten seconds.
Variants: `:concat` (the modalities side by side and an MLP), `:mean` (the training mean: CCC 0).
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    check_arg(arg, ("", "concat", "mean"))
    c = ConfigDict()
    c.seed = 0

    c.data = ConfigDict()
    c.data.store = "stores/features"
    c.data.synthetic = None
    c.data.modalities = ()  # all that the store has
    c.data.single_vector = ConfigDict()
    c.data.train_split = "train"
    c.data.eval_split = "validation"
    c.data.fold = None
    c.data.mix = ConfigDict()
    c.data.window = ConfigDict(dict(kind="sliding", length=100, hop=50, step_s=None))
    c.data.num_threads = 2
    c.data.resident = False

    c.inputs = ConfigDict(
        dict(
            standardize="store",
            noise_std=0.0,
            noise_always=False,
            offset_std=0.0,
            modality_dropout=0.1,
        )
    )
    if arg == "concat":
        c.model = ConfigDict(
            dict(
                name="concat_mlp",
                embed_dim=128,
                hidden_dims=(256, 128),
                dropout_rate=0.3,
                head="va",
                dtype="float32",
            )
        )
    elif arg == "mean":
        c.model = ConfigDict(dict(name="constant_mean"))
    else:
        c.model = ConfigDict(
            dict(
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
        )
    c.loss = ConfigDict(
        dict(
            terms=dict(ccc_batch=1.0, mse=0.5),
            dimension_weights=(1.0, 1.0),
            min_frames=2,
            stop_ccc_gradient=False,
        )
    )
    c.optimizer = ConfigDict(
        dict(
            name="adamw",
            learning_rate=5e-4,
            schedule_kind="cosine",
            warmup_epochs=1.0,
            weight_decay=5e-2,
            decay_all=False,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            clip_norm=1.0,
        )
    )
    c.train = ConfigDict(
        dict(
            batch_size=16,
            num_epochs=40.0,
            accumulate_steps=1,
            eval_every_epochs=2.0,
            log_every_steps=20,
            plateau=dict(factor=1.0, patience=5, min_scale=1e-3, stop_patience=6),
            stages=(),
            init={},
        )
    )
    c.eval = ConfigDict(dict(batch_size=16, hop=25, smooth_frames=(0, 0)))
    c.checkpoint = ConfigDict(dict(keep=dict(keep_latest=2, keep_best=1), every_steps=500))
    c.mesh = ConfigDict(dict(data=-1, model=1, fsdp=False))
    return c
