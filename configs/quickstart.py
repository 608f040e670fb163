"""MAVEN, small, on a synthetic corpus that the run makes itself: the whole main job in minutes.

    maven-jax train --config quickstart --workdir runs/quickstart

Variants: `:visual`, `:audio`, `:text` (one modality alone), `:polar` (the paper's head, intensity
and angle, instead of valence and arousal), `:concat` (the modalities side by side and an MLP),
`:mean` (the training mean, which scores 0). All share one corpus and one store.
Hardware: 2 CPU cores, 4 minutes with corpus and features. Expected: validation ccc .72. Encoders:
tiny ones with random weights.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg

MODALITIES = ("visual", "audio", "text")


def get_config(arg: str = "") -> ConfigDict:
    check_arg(arg, ("", *MODALITIES, "polar", "concat", "mean"))
    c = ConfigDict()
    c.seed = 0

    c.data = ConfigDict()
    c.data.store = "runs/synthetic/store"
    c.data.synthetic = ConfigDict(
        dict(root="runs/synthetic/corpus", videos=96, seconds=24.0, seed=0, encoders="tiny")
    )
    c.data.modalities = (arg,) if arg in MODALITIES else MODALITIES
    c.data.single_vector = ConfigDict()
    c.data.train_split = "train"
    c.data.eval_split = "validation"
    c.data.fold = None
    c.data.mix = ConfigDict()
    c.data.window = ConfigDict(dict(kind="sliding", length=100, hop=100, step_s=None))
    c.data.num_threads = 2
    c.data.resident = False

    c.inputs = ConfigDict(
        dict(
            standardize="store",
            noise_std=0.5,
            noise_always=False,
            offset_std=0.0,
            modality_dropout=0.1,
        )
    )

    if arg == "concat":
        c.model = ConfigDict(
            dict(
                name="concat_mlp", embed_dim=64, hidden_dims=(128, 64), dropout_rate=0.2, head="va"
            )
        )
    elif arg == "mean":
        c.model = ConfigDict(dict(name="constant_mean"))
    else:
        c.model = ConfigDict(
            dict(
                name="maven",
                embed_dim=16,
                num_heads=2,
                dropout_rate=0.3,
                shared_norm=True,
                refine_dim=96,
                num_stacks=2,
                beit_layers=1,
                beit_heads=4,
                beit_mlp_dim=192,
                layer_scale_init=0.1,
                relative_position="1d",
                beit_dropout_rate=0.2,
                stochastic_depth_rate=0.0,
                remat=False,
                head_dims=(64, 64),
                head_dropout_rate=0.2,
                head="polar" if arg == "polar" else "va",
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
            learning_rate=1e-3,
            schedule_kind="cosine",
            warmup_epochs=0.5,
            weight_decay=0.5,
            decay_all=False,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            clip_norm=1.0,
        )
    )
    c.train = ConfigDict(
        dict(
            batch_size=8,
            num_epochs=16.0,
            accumulate_steps=1,
            eval_every_epochs=2.0,
            log_every_steps=32,
            plateau=dict(factor=1.0, patience=5, min_scale=1e-3, stop_patience=None),
            stages=(),
            init={},
        )
    )
    c.eval = ConfigDict(dict(batch_size=16, hop=25, smooth_frames=(0, 0)))
    c.checkpoint = ConfigDict(dict(keep=dict(keep_latest=2, keep_best=1), every_steps=200))
    c.mesh = ConfigDict(dict(data=-1, model=1, fsdp=False))
    return c
