"""RJCA against torch.nn: pooling, the whole network, short windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from maven_jax.kernels import by_window
from maven_jax.models.fusion.audio_guided_pool import AudioGuidedPool, split_positions
from maven_jax.models.registry import create
from tests.support.reference_temporal import TorchPool, TorchRjca, array
from tests.support.rounding import assert_close
from tests.support.small_models import FAST_COMPILE, RJCA, random_batch, random_params

B, T, POSITIONS, CHANNELS, AUDIO, DIM = 2, 6, 4, 5, 7, 8
RELEASED = RJCA | {
    "positions": POSITIONS,
    "lstm_dim": DIM,
    "lstm_layers": 2,
    "correlation": "dense",
    "window_length": T,
    "joint_lstm_dim": DIM,
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def released_batch():
    random = np.random.default_rng(0)
    features = {
        "visual": random.standard_normal((B, T, POSITIONS * CHANNELS)).astype(np.float32),
        "audio": random.standard_normal((B, T, AUDIO)).astype(np.float32),
    }
    seen = jnp.ones((B, T), bool)
    return {m: jnp.asarray(x) for m, x in features.items()}, dict.fromkeys(features, seen), seen


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def predict(model, variables, *batch):
    return model.apply(variables, *batch, train=False).va


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def gradient_of(model, params, *batch):
    """Of the sum of sin(predictions), and these."""

    def loss(params):
        va = model.apply({"params": params}, *batch, train=False).va
        return jnp.sum(jnp.sin(va)), va

    return jax.grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("cache", [0, 2**24])
@pytest.mark.parametrize("layout", ["positions", "released"])
def test_pooling_is_torchs_with_gradients(layout, cache, monkeypatch):
    """At once, and window by window."""
    monkeypatch.setattr(by_window, "CACHE_BYTES", cache)
    peer = TorchPool(CHANNELS, 3, DIM, POSITIONS, layout)
    random = np.random.default_rng(1)
    maps = random.standard_normal((B, T, POSITIONS, CHANNELS)).astype(np.float32)
    guide = random.standard_normal((B, T, 3)).astype(np.float32)
    inputs, led = torch.tensor(maps, requires_grad=True), torch.tensor(guide, requires_grad=True)
    output = peer(inputs, led)
    torch.sin(output).sum().backward()
    module = AudioGuidedPool(DIM, layout)

    def loss(x, guide, params):
        y = module.apply({"params": params}, x, guide)
        return jnp.sum(jnp.sin(y)), y

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    arguments = (jnp.asarray(maps), jnp.asarray(guide), peer.params())
    (by_x, by_guide, by_params), pooled = gradient(*arguments)
    assert ("scan" in str(jax.make_jaxpr(loss)(*arguments))) == (not cache)
    assert_close(pooled, array(output))
    assert_close(by_x, inputs.grad)
    assert_close(by_guide, led.grad)
    assert_close(by_params["map"]["kernel"], peer.map.weight.grad.T)


def test_layouts_of_the_map():
    maps = np.arange(B * T * POSITIONS * CHANNELS, dtype=np.float32)
    maps = maps.reshape(B, T, POSITIONS, CHANNELS)
    flat = jnp.asarray(maps.reshape(B, T, -1))
    np.testing.assert_array_equal(split_positions(flat, POSITIONS, "positions"), maps)
    # torch flattens (channels, positions); the release cuts that into rows of `channels`.
    torchs = torch.tensor(maps).mT.reshape(B, T, -1).view(B, T, -1, CHANNELS)
    np.testing.assert_array_equal(split_positions(flat, POSITIONS, "released"), torchs)
    with pytest.raises(ValueError, match="20 wide do not hold 3 positions"):
        split_positions(flat, 3, "positions")
    with pytest.raises(ValueError, match="layout is 'channels'"):
        split_positions(flat, POSITIONS, "channels")


def test_the_whole_network_is_torchs():
    peer = TorchRjca(CHANNELS, AUDIO, DIM, POSITIONS, T, num_steps=2)
    model = create("rjca", modalities=("visual", "audio"), **RELEASED | {"layout": "released"})
    batch = released_batch()
    flat = functional.normalize(torch.tensor(np.asarray(batch[0]["visual"])), dim=-1)
    maps = flat.view(B, T, POSITIONS, CHANNELS).mT.reshape(B, T, POSITIONS, CHANNELS)
    output = peer(maps, torch.tensor(np.asarray(batch[0]["audio"])))
    params = peer.params()
    gradient, va = gradient_of(model, params, *batch)
    assert_close(va, array(output))
    assert array(output).std() > 0.02
    torch.sin(output).sum().backward()
    assert_close(gradient["pool"]["guide"]["kernel"], peer.pool.guide.weight.grad.T)
    assert_close(gradient["unimodal_audio"]["output"]["kernel"], peer.audio.output.weight.grad.T)
    initial = gradient["unimodal_visual"]["blstm"]["initial_state"]
    assert_close(initial.reshape(-1, DIM // 2), peer.visual.initial.grad)
    last = gradient["recursion"]["step"]["visual_key"]["kernel"][-1]
    assert_close(last, peer.steps[-1].key["visual"].weight.grad.T)


def test_every_parameter_has_its_counterpart():
    peer = TorchRjca(CHANNELS, AUDIO, DIM, POSITIONS, T, 1)
    model = create("rjca", modalities=("visual", "audio"), **RELEASED | {"num_steps": 1})
    ours = random_params(model, *released_batch(), train=False)["params"]
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, peer.params())


def test_without_recursion_a_short_window_is_as_if_alone():
    model = create("rjca", modalities=("visual", "audio"), **RELEASED | {"num_steps": 0})
    features, masks, seen = released_batch()
    variables = random_params(model, features, masks, seen, train=False)
    short = jax.tree.map(lambda x: x[:1, :4], (features, masks, seen))
    expected = predict(model, variables, *short)
    valid = jnp.arange(T)[None] < 4
    padded = {m: jnp.where(valid[..., None], x[:1], jnp.nan) for m, x in features.items()}
    padded_va = predict(model, variables, padded, dict.fromkeys(features, valid), valid)
    assert_close(padded_va[:, :4], expected)


def test_other_windows_and_maps_are_refused():
    model = create("rjca", modalities=("visual", "audio"), **RELEASED)
    features, masks, seen = released_batch()
    with pytest.raises(ValueError, match=f"window_length={T}, but these have 5"):
        jax.eval_shape(
            lambda *b: model.init(jax.random.key(0), *b, train=False),
            *jax.tree.map(lambda x: x[:, :5], (features, masks, seen)),
        )
    for changes, message in (
        ({"positions": 3}, "do not hold 3 positions"),
        ({"guide": "voice"}, "no modality guides the pooling over 4 positions"),
    ):
        model = create("rjca", modalities=("visual", "audio"), **RELEASED | changes)
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(
                lambda m=model: m.init(jax.random.key(0), *released_batch(), train=False)
            )


@pytest.mark.parametrize("modalities", [("visual",), ("audio",), ("text", "visual", "audio")])
def test_plain_vectors_of_any_modalities(modalities):
    batch = random_batch()
    model = create("rjca", modalities=modalities, **RJCA | {"positions": 1})
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), *batch, train=True))
    names = {f"unimodal_{m}" for m in modalities}
    assert names == {name for name in shapes["params"] if name.startswith("unimodal_")}
    out = jax.eval_shape(lambda v: model.apply(v, *batch, train=False), shapes)
    assert out.va.shape == (3, 8, 2)
