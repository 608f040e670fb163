"""MAVEN as its paper describes it (CVPRW 2025), on per-frame features of Aff-Wild2.

    maven-jax train --config maven --config.data.store=STORE --workdir runs/maven

Variants: `:visual`, `:audio`, `:text`, or several as in `:visual,audio`: the paper's ablation.
Published (valence / arousal / mean CCC, presumably official validation): .3068 / .3054 / .3061;
visual alone .1048 / .2459, audio alone .1283 / .0683, text alone .0019 / .0006.
Optimiser of section 3.8 (AdamW 1e-4, decay 1e-2); batch and epochs of section 4.2.

Ours where the paper is silent or differs: a prediction per frame instead of one per window
(`model.readout`), a CCC loss beside the MSE (`loss.terms`), a warm-up and a cosine schedule, early
stop, and 10 % modality dropout, so that one checkpoint serves when a modality is missing.
`loss.terms.ccc_batch=0.0 loss.terms.mse=1.0 inputs.modality_dropout=0.0` is the paper's training.
Needs: one GPU or TPU with 16 GB or more. Not trained on Aff-Wild2 by us yet: no score is claimed.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    c = ConfigDict()
    c.seed = 0

    c.data = ConfigDict()
    c.data.store = "stores/affwild2"
    c.data.synthetic = None
    c.data.modalities = tuple(arg.split(",")) if arg else ("visual", "audio", "text")
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
            modality_dropout=0.1,
        )
    )
    c.model = ConfigDict(
        dict(
            name="maven",
            embed_dim=512,
            num_heads=2,
            dropout_rate=0.1,
            shared_norm=True,
            refine_dim=768,
            num_stacks=2,
            beit_layers=12,
            beit_heads=12,
            beit_mlp_dim=3072,
            layer_scale_init=0.1,
            relative_position="1d",
            beit_dropout_rate=0.0,
            stochastic_depth_rate=0.1,
            remat=False,
            head_dims=(512, 256),
            head_dropout_rate=0.2,
            head="polar",
            readout="frame",
            dtype="bfloat16",
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
            learning_rate=1e-4,
            schedule_kind="cosine",
            warmup_epochs=2.0,
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
            num_epochs=200.0,
            accumulate_steps=1,
            eval_every_epochs=1.0,
            log_every_steps=50,
            plateau=dict(factor=1.0, patience=5, min_scale=1e-4, stop_patience=30),
            stages=(),
            init={},
        )
    )
    c.eval = ConfigDict(dict(batch_size=32, hop=100, smooth_frames=(0, 0)))
    c.checkpoint = ConfigDict(dict(keep=dict(keep_latest=2, keep_best=1), every_steps=2000))
    c.mesh = ConfigDict(dict(data=-1, model=1, fsdp=False))
    return c
