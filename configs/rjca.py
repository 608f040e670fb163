"""RJCA (Praveen et al., 2023): recursive joint cross-attention of face and voice, with LSTMs.

    maven-jax prepare --root AFFWILD2 --out stores/rjca --encoders rjca
    maven-jax train --config rjca --config.data.store=stores/rjca --workdir runs/rjca

Variants: "" (the paper's formulas, `correlation="channel"`), `:released` (the released network,
whose weights `maven-jax convert --model rjca` reads).
Folds: `--config.data.fold=1` … `5` (0 is the official split).
Published: test .537 / .576 / .557 (valence / arousal / mean CCC, as re-run by RJCMA's authors). The
release's validation .715 / .688 counts unlabelled frames as matches and is no target.

A window is 16 frames about a second apart (32 frames of a 30 fps video); windows slide by one frame
inside a block, so that every frame is predicted once. Unlabelled frames count in no score. The
learning rate stays at 1e-4; the release's jumps to 1e-3 at epoch 6.
Needs: one GPU with 8 GB or more; the store holds 50 kB per frame. Not trained on Aff-Wild2 by us
yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax.recipes import check_arg


def get_config(arg: str = "") -> ConfigDict:
    released = check_arg(arg, ("", "released")) == "released"
    c = ConfigDict()
    c.seed = 0

    c.data = ConfigDict()
    c.data.store = "stores/rjca"
    c.data.synthetic = None
    c.data.modalities = ("visual", "audio")
    c.data.single_vector = ConfigDict()
    c.data.train_split = "train"
    c.data.eval_split = "validation"
    c.data.fold = None
    c.data.mix = ConfigDict()
    c.data.window = ConfigDict(dict(kind="dense", length=16, hop=1, step_s=32 / 30))
    c.data.num_threads = 8
    c.data.resident = False

    c.inputs = ConfigDict(
        dict(
            standardize="none",
            noise_std=0.0,
            noise_always=False,
            offset_std=0.0,
            modality_dropout=0.0,
        )
    )
    c.model = ConfigDict(
        dict(
            name="rjca",
            pooled="visual",
            guide="audio",
            positions=49,
            layout="released" if released else "positions",
            lstm_dim=512,
            lstm_layers=2,
            lstm_dropout_rate=0.1,
            correlation="dense" if released else "channel",
            window_length=c.data.window.get_ref("length"),
            num_steps=1 if released else 3,
            share_weights=False,
            attention_dim=32,
            joint="concat",
            joint_dim=1024,
            query="linear",
            correlation_dropout_rate=0.6 if released else 0.0,
            remat=False,
            joint_lstm_dim=512,
            joint_lstm_dropout_rate=0.0,
            head_dim=128,
            head_dropout_rate=0.6,
            dtype="float32",
        )
    )
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
            name="adam",
            learning_rate=1e-4,
            schedule_kind="constant",
            warmup_epochs=0.0,
            weight_decay=0.0,
            decay_all=False,
            b1=0.9,
            b2=0.999,
            eps=1e-8,
            clip_norm=None,
        )
    )
    c.train = ConfigDict(
        dict(
            batch_size=64,
            num_epochs=20.0,
            accumulate_steps=1,
            eval_every_epochs=1.0,
            log_every_steps=50,
            plateau=dict(factor=1.0, patience=5, min_scale=1e-4, stop_patience=8),
            stages=(),
            init={},
        )
    )
    c.eval = ConfigDict(dict(batch_size=128, hop=1, smooth_frames=(20, 50)))
    c.checkpoint = ConfigDict(dict(keep=dict(keep_latest=2, keep_best=1), every_steps=2000))
    c.mesh = ConfigDict(dict(data=-1, model=1, fsdp=False))
    return c
