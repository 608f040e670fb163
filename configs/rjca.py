"""RJCA (Praveen et al., 2023): recursive joint cross-attention of face and voice, with LSTMs.

    maven-jax prepare --root AFFWILD2 --out stores/rjca --encoders rjca
    maven-jax train --config rjca --config.data.store=stores/rjca --workdir runs/rjca

Variants: "" (the paper's formulas, `correlation="channel"`), `:released` (the released network,
whose weights `maven-jax convert --model rjca` reads).
Folds: `--config.data.fold=1` … `5` (0 is the official split).
Published: test .537 / .576 / .557 (valence / arousal / mean CCC, run again by RJCMA's authors). The
release's validation .715 / .688 counts unlabelled frames as matches and is no target.

A window is 16 frames about a second apart (32 frames of a 30 fps video), and every frame is
predicted once. Unlabelled frames count in no score. The learning rate stays at 1e-4; in the release
it jumps to 1e-3 at epoch 6.
Needs: one GPU with 8 GB or more; the store holds 50 kB per frame. Not trained on Aff-Wild2 by us
yet: no score is claimed.
"""

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    released = recipes.check_arg(arg, ("", "released")) == "released"
    c = recipes.common()
    c.data.store = "stores/rjca"
    c.data.modalities = ("visual", "audio")
    c.data.window.update(kind="dense", length=16, hop=1, step_s=32 / 30)
    c.inputs.standardize = "none"
    c.model = dict(
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
    c.loss.terms = dict(ccc_batch=1.0)
    c.optimizer.update(
        name="adam",
        learning_rate=1e-4,
        schedule_kind="constant",
        warmup_epochs=0.0,
        weight_decay=0.0,
        clip_norm=None,
    )
    c.train.update(batch_size=64, num_epochs=20.0)
    c.train.plateau.stop_patience = 8
    c.eval.update(batch_size=128, hop=1, smooth_frames=(20, 50))
    return c
