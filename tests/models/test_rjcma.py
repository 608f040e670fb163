"""RJCMA against torch.nn, in training and in evaluation; its options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maven_jax.errors import UserError
from maven_jax.models.registry import create
from tests.support.reference_temporal import TorchRjcma, array
from tests.support.rounding import assert_close
from tests.support.small_models import FAST_COMPILE, RJCMA, random_batch, random_params

B, T = 3, 7
WIDTHS = {"visual": 10, "audio": 6, "text": 7}
CHANNELS = {"visual": (8, 8, 6), "audio": (6, 6), "text": (5, 4)}
RELEASED = RJCMA | {
    "channels": CHANNELS,
    "temporal_dropout_rate": 0.0,
    "correlation": "dense",
    "window_length": T,
    "joint": "concat",
    "correlation_dropout_rate": 0.0,
    "dimensions": ("valence",),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def full_batch():
    random = np.random.default_rng(0)
    features = {
        m: jnp.asarray(random.standard_normal((B, T, w)), jnp.float32) for m, w in WIDTHS.items()
    }
    seen = jnp.ones((B, T), bool)
    return features, dict.fromkeys(features, seen), seen


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def predict(model, variables, *batch):
    return model.apply(variables, *batch, train=False).va


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def train(model, variables, *batch):
    """Prediction, running statistics and gradients of a training step."""

    def loss(params):
        prediction, updated = model.apply(
            variables | {"params": params},
            *batch,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return jnp.sum(jnp.sin(prediction.va)), (prediction.va, updated["batch_stats"])

    gradient, (va, stats) = jax.grad(loss, has_aux=True)(variables["params"])
    return va, stats, gradient


def test_a_training_step_and_what_is_predicted_after_it_are_torchs():
    peer = TorchRjcma(WIDTHS, CHANNELS, 3, T, 2, 8, outputs=1)
    model = create("rjcma", modalities=tuple(WIDTHS), **RELEASED)
    batch = full_batch()
    inputs = {m: torch.tensor(np.asarray(x)) for m, x in batch[0].items()}
    variables = {"params": peer.params(), "batch_stats": peer.batch_stats()}
    output = peer(inputs)
    torch.sin(output).sum().backward()
    va, stats, gradient = train(model, variables, *batch)
    assert_close(va[..., :1], array(output))
    assert not np.any(va[..., 1])
    jax.tree.map(assert_close, stats, peer.batch_stats())
    assert_close(gradient["head"]["hidden"]["kernel"], peer.hidden.weight.grad.T)
    assert_close(gradient["norm_text"]["scale"], peer.norm["text"].weight.grad)
    of_steps = gradient["recursion"]["step"]["audio_value"]["kernel"]
    for step, expected in enumerate(peer.steps):
        assert_close(of_steps[step], expected.value["audio"].weight.grad.T)
    conv = peer.tcn["visual"].levels[0].first.parametrizations.weight
    of_conv = gradient["temporal_visual"]["tcn"]["level_0_conv_1"]
    assert_close(of_conv["kernel"], conv.original1.grad.permute(2, 1, 0))
    assert_close(of_conv["scale"], conv.original0.grad.ravel())
    peer.eval()
    variables |= {"batch_stats": stats}
    assert_close(predict(model, variables, *batch)[..., :1], array(peer(inputs)))


def test_every_parameter_has_its_counterpart():
    peer = TorchRjcma(WIDTHS, CHANNELS, 3, T, 2, 8, outputs=1)
    model = create("rjcma", modalities=tuple(WIDTHS), **RELEASED)
    ours = random_params(model, *full_batch(), train=False)
    theirs = {"params": peer.params(), "batch_stats": peer.batch_stats()}
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)


def test_padding_reaches_no_statistic():
    """A window cut short trains like that window alone, where nothing ties it to its length."""
    model = create("rjcma", modalities=tuple(WIDTHS), **RELEASED | {"num_steps": 0})
    features, masks, seen = full_batch()
    variables = random_params(model, features, masks, seen, train=False)
    short = jax.tree.map(lambda x: x[:, :4], (features, masks, seen))
    valid = jnp.broadcast_to(jnp.arange(T) < 4, (B, T))
    padded = {m: jnp.where(valid[..., None], x, jnp.nan) for m, x in features.items()}
    padded_step = train(model, variables, padded, dict.fromkeys(features, valid), valid)
    expected = train(model, variables, *short)
    assert_close(padded_step[0][:, :4], expected[0])
    jax.tree.map(assert_close, padded_step[1], expected[1])


def test_dimensions_fill_their_own_columns():
    batch = full_batch()
    both = create(
        "rjcma", modalities=tuple(WIDTHS), **RELEASED | {"dimensions": ("arousal", "valence")}
    )
    one = create("rjcma", modalities=tuple(WIDTHS), **RELEASED | {"dimensions": ("arousal",)})
    variables = random_params(both, *batch, train=False)
    va = predict(both, variables, *batch)
    assert np.abs(va).max() <= 1
    head = variables["params"]["head"]
    alone = head | {"output": {k: x[..., :1] for k, x in head["output"].items()}}
    variables |= {"params": variables["params"] | {"head": alone}}
    arousal = predict(one, variables, *batch)
    assert_close(arousal[..., 1], va[..., 1])
    assert not np.any(arousal[..., 0])


@pytest.mark.parametrize("temporal", ["none", "tcn", "blstm"])
@pytest.mark.parametrize("correlation", ["channel", "time", "dense"])
@pytest.mark.parametrize("num_steps", [0, 3])
def test_every_ablation_can_be_built(temporal, correlation, num_steps):
    changes = {"temporal": temporal, "correlation": correlation, "num_steps": num_steps}
    model = create("rjcma", modalities=("text", "visual"), **RJCMA | changes)
    batch = random_batch()
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=True))
    assert ("recursion" in shapes["params"]) == (num_steps > 0)
    assert ("temporal_text" in shapes["params"]) == (temporal != "none")
    out = jax.eval_shape(lambda v: model.apply(v, *batch, train=False), shapes)
    assert out.va.shape == (3, 8, 2)
    assert out.va.dtype == jnp.float32


def test_other_windows_and_wrong_keys_are_refused():
    features, masks, seen = full_batch()
    longer = {m: jnp.pad(x, ((0, 0), (0, 1), (0, 0))) for m, x in features.items()}
    seen_longer = jnp.ones((B, T + 1), bool)
    long = (longer, dict.fromkeys(longer, seen_longer), seen_longer)

    def build(batch, **changes):
        model = create("rjcma", modalities=tuple(WIDTHS), **RELEASED | changes)
        jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=False))

    build((features, masks, seen))
    with pytest.raises(ValueError, match="window_length=7, but these have 8"):
        build(long)
    with pytest.raises(ValueError, match="dimensions are"):
        build((features, masks, seen), dimensions=("valence", "dominance"))
    with pytest.raises(ValueError, match="no widths for modality 'text'"):
        build((features, masks, seen), channels={"visual": (4,), "audio": (4,)})
    with pytest.raises(ValueError, match="has no modality 'text'"):
        build(({m: features[m] for m in ("visual", "audio")}, masks, seen))
    with pytest.raises(UserError, match="modalities"):
        create("rjcma", modalities=(), **RELEASED)
