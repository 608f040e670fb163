"""What any model on Aff-Wild2 has to beat.

    maven-jax train --config baseline:concat --config.data.store=STORE --workdir runs/concat

Variants: `:concat`, the projected modalities side by side and an MLP on each frame alone; `:mean`,
the training mean for every frame, which scores 0.
For comparison (valence / arousal / mean CCC, validation): the ABAW organisers' ResNet-50 has
.240 / .200 / .220.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg


def get_config(arg: str = "concat") -> ConfigDict:
    variant = check_arg(arg or "concat", ("concat", "mean"))
    c = ConfigDict()
    c.seed = 0

    c.data = ConfigDict()
    c.data.store = "stores/affwild2"
    c.data.synthetic = None
    c.data.modalities = ("visual", "audio", "text")
    c.data.single_vector = ConfigDict()
    c.data.train_split = "train"
    c.data.eval_split = "validation"
    c.data.fold = None
    c.data.mix = ConfigDict()
    c.data.window = ConfigDict(dict(kind="sliding", length=300, hop=200, step_s=None))
    c.data.num_threads = 8
    c.data.resident = False

    c.inputs = ConfigDict(
        dict(
            standardize="store",
            noise_std=0.0,
            noise_always=False,
            offset_std=0.0,
            modality_dropout=0.0,
        )
    )
    if variant == "concat":
        c.model = ConfigDict(
            dict(
                name="concat_mlp",
                embed_dim=512,
                hidden_dims=(512, 256),
                dropout_rate=0.3,
                head="va",
                dtype="float32",
            )
        )
    else:
        c.model = ConfigDict(dict(name="constant_mean"))
    c.loss = ConfigDict(
        dict(
            terms=dict(ccc_batch=1.0),
            dimension_weights=(1.0, 1.0),
            min_frames=2,
            stop_ccc_gradient=False,
        )
    )
    c.optimizer = ConfigDict(
        dict(
            name="adamw",
            learning_rate=1e-4,
            schedule_kind="cosine",
            warmup_epochs=1.0,
            weight_decay=1e-2,
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
            num_epochs=30.0,
            accumulate_steps=1,
            eval_every_epochs=1.0,
            log_every_steps=50,
            plateau=dict(factor=1.0, patience=5, min_scale=1e-4, stop_patience=8),
            stages=(),
            init={},
        )
    )
    c.eval = ConfigDict(dict(batch_size=32, hop=100, smooth_frames=(0, 0)))
    c.checkpoint = ConfigDict(dict(keep=dict(keep_latest=2, keep_best=1), every_steps=2000))
    c.mesh = ConfigDict(dict(data=-1, model=1, fsdp=False))
    return c
