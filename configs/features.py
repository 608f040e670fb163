"""A small, regularised model on features made elsewhere (`maven-jax prepare --features DIR ...`).

    maven-jax train --config features --config.data.store=STORE --workdir runs/mine

Takes every modality of the store, whatever its name, width and rate, unless
`--config.data.modalities=a,b` picks some. All variants share inputs, loss and schedule, and sizes
that suit a few dozen videos.
Variants: `:tcn` (the default: modalities side by side and a convolutional network over time),
`:blstm`, `:transformer`, `:concat` (each frame by itself), `:late_fusion` (a BLSTM per modality),
`:maven`, `:rjca`, `:rjcma`, `:ridge` (linear, in closed form: what to beat), `:mean` (CCC 0).
What keeps people that are few from being learned by heart: noise, an offset per window that
imitates another person or microphone, modalities that are dropped, an average of the weights, ridge
beside the network, and one cosine cycle without an early stop, so that no split chooses the step.
As much of each recording's mean is taken away as helps ridge with recordings left out
(`data.centre`).
`data.window` counts frames of the annotation: at 10 Hz, 200 are twenty seconds.
Hardware: 2 CPU cores, minutes for a few dozen videos. Expected: depends on the features.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes

WIDTH = 128
TEMPORAL = ("tcn", "blstm", "transformer")
VARIANTS = (*TEMPORAL, "concat", "late_fusion", "maven", "rjca", "rjcma", "ridge", "mean")


def early_fusion(temporal: str) -> dict[str, Any]:
    return dict(
        name="early_fusion",
        temporal=temporal,
        embed_dim=WIDTH // 4,
        width=WIDTH,
        num_layers=2 if temporal == "transformer" else 5,
        kernel_size=5,
        num_heads=4,
        dropout_rate=0.3,
        head_dims=(),
        head_dropout_rate=0.0,
        head="va",
        dtype="float32",
    )


def get_config(arg: str = "") -> ConfigDict:
    variant = recipes.check_arg(arg or "tcn", VARIANTS)
    if variant == "ridge":
        c = recipes.load("ridge")
        c.data.store = "stores/features"
        return c
    c = recipes.common()
    c.data.store = "stores/features"
    c.data.modalities = ()  # all that the store has
    c.data.window.update(length=200, hop=100)
    c.data.num_threads = 2
    c.inputs.update(
        standardize="store",
        noise_std=0.5,
        video_offset_std=1.0,
        speed=0.2,
        modality_dropout=0.1,
    )
    if variant in TEMPORAL or variant == "concat":
        c.model = early_fusion("none" if variant == "concat" else variant)
    elif variant == "mean":
        c.model = dict(name="constant_mean")
    else:
        system = recipes.load(f"systems:{variant}")
        c.model = recipes.plain(system.model)
        if variant == "late_fusion":
            c.model.temporal = "blstm"
        if variant == "rjcma":  # its other form is tied to the number of frames
            c.model.correlation = "channel"
        if "window_length" in c.model:
            c.model.window_length = c.data.window.get_ref("length")
    if variant != "mean":
        ridge = recipes.load("ridge")
        c.data.centre = ridge.data.centre
        c.model.ridge = dict(
            weight=0.25,
            widths=ridge.model.widths,
            penalties=ridge.optimizer.penalties,
            frame_step=1,
            most_groups=16,
        )
    c.loss.terms = dict(ccc_batch=1.0, mse=0.5)
    c.optimizer.update(
        name="adamw",
        learning_rate=3e-3 if variant in (*TEMPORAL, "concat", "maven") else 1e-3,
        schedule_kind="cosine",
        warmup_epochs=1.0,
        weight_decay=0.5,
    )
    c.train.update(batch_size=8, num_epochs=25.0, eval_every_epochs=5.0, log_every_steps=50)
    c.train.update(batch_frames=1600, ema_decay=0.99)
    c.train.plateau.update(min_scale=1e-3, stop_patience=None)
    c.eval.update(batch_size=16, hop=25, blend="centre")
    c.checkpoint.every_steps = 500
    return c
