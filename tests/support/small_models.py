"""Small batches and models that the model tests share."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.models.registry import create
from maven_jax.training.losses import make_loss

WIDTHS = {"visual": 10, "audio": 6, "text": 7}

MAVEN = {
    "embed_dim": 16,
    "num_heads": 2,
    "dropout_rate": 0.1,
    "shared_norm": False,
    "refine_dim": 24,
    "num_stacks": 2,
    "beit_layers": 2,
    "beit_heads": 4,
    "beit_mlp_dim": 32,
    "layer_scale_init": 0.1,
    "relative_position": "1d",
    "beit_dropout_rate": 0.1,
    "stochastic_depth_rate": 0.1,
    "remat": False,
    "head_dims": (16, 8),
    "head_dropout_rate": 0.2,
    "head": "polar",
    "readout": "frame",
}
RELEASED = {
    "embed_dim": 16,
    "num_heads": 2,
    "dropout_rate": 0.1,
    "head_dims": (16, 8),
    "head_dropout_rates": (0.5, 0.3),
    "refine_dim": 24,
    "beit_layers": 2,
    "beit_heads": 4,
    "beit_mlp_dim": 32,
}
CONCAT = {"embed_dim": 16, "hidden_dims": (16, 8), "dropout_rate": 0.2, "head": "va"}
RJCMA = {
    "temporal": "tcn",
    "channels": {"visual": (8, 6), "*": (6, 4)},
    "kernel_size": 3,
    "temporal_dropout_rate": 0.1,
    "correlation": "time",
    "window_length": 8,
    "num_steps": 2,
    "share_weights": False,
    "attention_dim": 5,
    "joint": "linear",
    "joint_dim": 12,
    "query": "identity",
    "correlation_dropout_rate": 0.1,
    "remat": False,
    "head_dim": 8,
    "dimensions": ("valence", "arousal"),
}
RJCA = {
    "pooled": "visual",
    "guide": "audio",
    "positions": 5,
    "layout": "positions",
    "lstm_dim": 8,
    "lstm_layers": 1,
    "lstm_dropout_rate": 0.1,
    "correlation": "channel",
    "window_length": 8,
    "num_steps": 2,
    "share_weights": False,
    "attention_dim": 5,
    "joint": "concat",
    "joint_dim": 0,
    "query": "linear",
    "correlation_dropout_rate": 0.1,
    "remat": False,
    "joint_lstm_dim": 8,
    "joint_lstm_dropout_rate": 0.0,
    "head_dim": 6,
    "head_dropout_rate": 0.6,
}
PER_MODALITY = {k: RJCMA[k] for k in ("temporal", "channels", "kernel_size")} | {
    "temporal_dropout_rate": 0.1
}
LFAN = PER_MODALITY | {"leader": "visual", "attention_dim": 6}
EARLY_FUSION = dict(
    temporal="tcn",
    embed_dim=4,
    width=8,
    num_layers=2,
    kernel_size=3,
    num_heads=2,
    dropout_rate=0.0,
    head_dims=(),
    head_dropout_rate=0.0,
    head="va",
)
RAS = dict(
    temporal={"audio": "mamba", "text": "none", "*": "transformer"},
    num_layers={"*": 2},
    embed_dim=8,
    num_heads=2,
    kernel_size=3,
    dropout_rate=0.1,
    gated_by={},
    experts=False,
    expert_dim=6,
    head_dims=(),
    head_dropout_rate=0.0,
    head="va",
)
LATE_FUSION = PER_MODALITY | {"head_dims": (8,), "head_dropout_rate": 0.2, "head": "va"}

# name in the tests -> (name in the registry, attributes)
SMALL = {
    "maven": ("maven", MAVEN),
    "maven_pooled": ("maven", MAVEN | {"readout": "pooled", "head": "va", "shared_norm": True}),
    "maven_released_mlp": ("maven_released", RELEASED | {"variant": "mlp"}),
    "maven_released_beit": ("maven_released", RELEASED | {"variant": "beit"}),
    "concat_mlp": ("concat_mlp", CONCAT),
    "early_fusion": ("early_fusion", EARLY_FUSION),
    "early_fusion_transformer": ("early_fusion", EARLY_FUSION | {"temporal": "transformer"}),
    "early_fusion_mamba": ("early_fusion", EARLY_FUSION | {"temporal": "mamba"}),
    "ras": ("ras", RAS),
    "ras_experts": ("ras", RAS | {"experts": True}),
    "rjca": ("rjca", RJCA),
    "rjca_vectors": ("rjca", RJCA | {"positions": 1, "correlation": "dense"}),
    "rjcma": ("rjcma", RJCMA),
    "rjcma_blstm": ("rjcma", RJCMA | {"temporal": "blstm", "num_steps": 0}),
    "rjcma_no_temporal": ("rjcma", RJCMA | {"temporal": "none", "correlation": "dense"}),
    "grjca": ("grjca", RJCMA | {"gate_temperature": 0.1, "unit_length": True}),
    "hgrjca": ("hgrjca", RJCMA | {"gate_temperature": 0.1, "unit_length": True}),
    "tagf": ("tagf", RJCMA | {"gate_dim": 3}),
    "lfan": ("lfan", LFAN),
    "lfan_abaw3": ("lfan_abaw3", LFAN | {"num_heads": 2, "dropout_rate": 0.1}),
    "late_fusion": ("late_fusion", LATE_FUSION | {"temporal": "blstm"}),
}


def small_model(name, modalities=tuple(WIDTHS), **changes):
    registered, attributes = SMALL[name]
    return create(registered, modalities=modalities, **(attributes | changes))


def random_batch(b=3, t=8, *, single=(), seed=0, widths=WIDTHS):
    """Returns (features, modality_masks, frame_mask); `single` modalities have one vector."""
    key = jax.random.key(seed)
    features, masks = {}, {}
    for index, (name, width) in enumerate(widths.items()):
        s = 1 if name in single else t
        k1, k2 = jax.random.split(jax.random.fold_in(key, index))
        features[name] = jax.random.normal(k1, (b, s, width))
        masks[name] = jax.random.bernoulli(k2, 0.7, (b, s))
    lengths = t - jnp.arange(b) % 3
    return features, masks, jnp.arange(t) < lengths[:, None]


def random_params(model, *args, seed=5, **kwargs):
    """Returns variables of the right shapes with nothing zero, without compiling an init."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *args, **kwargs))
    leaves, tree = jax.tree.flatten_with_path(nn.meta.unbox(shapes))
    params = []
    for index, (path, leaf) in enumerate(leaves):
        noise = np.random.default_rng((seed, index)).standard_normal(leaf.shape)
        size = 0.3 if leaf.ndim < 2 else np.prod(leaf.shape) ** -0.25
        around = 1.0 if path[-1].key in ("scale", "var") else 0.0
        value = around + size * noise
        # Running variances are positive.
        value = np.abs(value) + 0.1 if path[-1].key == "var" else value
        params.append(jnp.asarray(value, leaf.dtype))
    return jax.tree.unflatten(tree, params)


LOSS = make_loss({"ccc": 1.0, "mse": 1.0})
# The runs are short; most of a test's time would go into optimising them.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


@functools.cache
def compiled(name, single):
    """Returns (params, run); run(params, *batch) gives predictions, loss and all gradients.

    Compiled once for all tests of a model.
    """
    model = small_model(name)
    params = random_params(model, *random_batch(single=single), train=False)

    def forward(params, *batch):
        frame_mask = batch[2]
        targets = jnp.sin(jnp.arange(frame_mask.size * 2.0)).reshape(*frame_mask.shape, 2)
        prediction = model.apply(params, *batch, train=False)
        return LOSS(prediction, targets, frame_mask)[0], prediction.va

    @functools.partial(jax.jit, compiler_options=FAST_COMPILE)
    def run(params, *batch):
        (loss, va), gradients = jax.value_and_grad(forward, has_aux=True)(params, *batch)
        return va, loss, gradients

    return params, run
