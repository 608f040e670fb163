"""TCN and BLSTM against torch.nn; masked frames; what the program's size depends on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn

from maven_jax.layers.lstm import Blstm, ResidualBlstm, l2_normalize
from maven_jax.layers.tcn import CausalConv, Tcn
from maven_jax.layers.temporal import TemporalModel, channels_of
from tests.support.reference_temporal import TorchResidualBlstm, TorchTcn, array, lstm_params
from tests.support.rounding import assert_close
from tests.support.small_models import FAST_COMPILE, random_params

B, T, C = 3, 9, 6
LENGTHS = (9, 5, 1)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def frames(seed=0, t=T, width=C):
    return np.random.default_rng(seed).standard_normal((B, t, width)).astype(np.float32)


def random_weights(module):
    """Random parameters for `frames`, near enough to those of a start."""
    everything = jnp.ones((B, T), bool)
    return random_params(module, jnp.asarray(frames()), everything, deterministic=True).get(
        "params", {}
    )


def tail_mask(t=T):
    return jnp.arange(t) < jnp.array(LENGTHS)[:, None]


def apply(module, params, x, mask=None):
    mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
    return _apply(module, params, jnp.asarray(x), mask)


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def _apply(module, params, x, mask):
    return module.apply({"params": params}, x, mask, deterministic=True)


def gradients(module, params, x, mask):
    """Of the sum of sin(outputs), by parameters and inputs."""
    return _gradients(module, params, jnp.asarray(x), mask)


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def _gradients(module, params, x, mask):
    def loss(params, x):
        y = module.apply({"params": params}, x, mask, deterministic=True)
        return jnp.sum(jnp.where(mask[..., None], jnp.sin(y), 0))

    return jax.grad(loss, argnums=(0, 1))(params, x)


def test_tcn_is_torchs_with_all_gradients():
    peer = TorchTcn(C, (8, 8, 5), kernel_size=3)
    module, x = Tcn((8, 8, 5), 3, 0.1), frames()
    inputs = torch.tensor(x, requires_grad=True)
    output = peer(inputs)
    assert_close(apply(module, peer.params(), x), array(output))
    torch.sin(output).sum().backward()
    by_params, by_x = gradients(module, peer.params(), x, jnp.ones((B, T), bool))
    assert_close(by_x, inputs.grad)
    level = peer.levels[2]
    weight = level.first.parametrizations.weight
    conv = by_params["level_2_conv_1"]
    assert_close(conv["kernel"], weight.original1.grad.permute(2, 1, 0))
    assert_close(conv["scale"], weight.original0.grad.ravel())
    assert_close(by_params["level_2_residual"]["kernel"], level.shortcut.weight.grad[..., 0].T)


def test_tcn_sees_no_later_frame_and_all_earlier_ones_within_reach():
    module, x = Tcn((4, 4), 3, 0.1), frames(t=20)
    params = random_weights(module)
    moved = apply(module, params, np.where(np.arange(20)[:, None] == 5, x + 1, x))
    reach = np.abs(moved - apply(module, params, x)).max(axis=(0, 2))
    # Two convolutions of three taps per level: 1 + 2 · 2 · (1 + 2) frames.
    assert np.flatnonzero(reach).tolist() == list(range(5, 5 + 12 + 1))


def test_weight_norm_changes_nothing_at_the_start():
    module = CausalConv(5, 3, 2, (None, None))
    x = jnp.asarray(frames())
    params = nn.meta.unbox(module.init(jax.random.key(0), x))["params"]
    norms = np.linalg.norm(params["kernel"].reshape(-1, 5), axis=0)
    assert_close(params["scale"], norms)
    doubled = module.apply({"params": params | {"kernel": 2 * params["kernel"]}}, x)
    assert_close(doubled, module.apply({"params": params}, x))


@pytest.mark.parametrize("lengths", [(T,) * B, LENGTHS])
def test_blstm_is_torchs_with_learned_initial_state(lengths):
    """Windows shorter than t, NaN behind their end, give what torch gives them alone."""
    peer = TorchResidualBlstm(C, 8)
    blstm, residual = Blstm(4, 2, 0.1, True), ResidualBlstm(8, 2, 0.1, True)
    mask = jnp.arange(T) < jnp.array(lengths)[:, None]
    x = np.where(mask[..., None], frames(), np.nan)
    states = apply(blstm, peer.blstm_params(), x, mask)
    output = apply(residual, peer.params(), x, mask)
    assert np.isfinite(states).all()
    assert np.isfinite(output).all()
    for row, length in enumerate(lengths):
        alone = torch.tensor(x[row : row + 1, :length])
        assert_close(states[row, :length], array(peer.states(alone))[0])
        assert_close(output[row, :length], array(peer(alone))[0])


def test_gradients_of_the_blstm_are_torchs():
    peer = TorchResidualBlstm(C, 8)
    x = frames()
    inputs = torch.tensor(x, requires_grad=True)
    # Padding on torch's side: only the valid frames of each window, one window at a time.
    for row, length in enumerate(LENGTHS):
        torch.sin(peer(inputs[row : row + 1, :length])).sum().backward()
    mask = tail_mask()
    module = ResidualBlstm(8, 2, 0.1, True)
    by_params, by_x = gradients(module, peer.params(), x, mask)
    assert_close(by_x, inputs.grad)
    blstm = by_params["blstm"]
    assert_close(blstm["initial_state"].reshape(8, 4), peer.initial.grad)
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        layer = blstm[f"layer_0_{direction}"]
        recurrent = getattr(peer.lstm, f"weight_hh_l0{suffix}").grad.T
        assert_close(layer["recurrent"], recurrent)
        assert_close(layer["input"]["bias"], getattr(peer.lstm, f"bias_ih_l0{suffix}").grad)
    poisoned = np.where(mask[..., None], x, np.nan)
    for a, b in zip(
        jax.tree.leaves(gradients(module, peer.params(), poisoned, mask)),
        jax.tree.leaves((by_params, by_x)),
        strict=True,
    ):
        assert_close(a, b)


def test_one_way_from_zeros_is_torchs_too():
    lstm = torch.nn.LSTM(C, 5, 1, batch_first=True)
    module = Blstm(5, 1, 0.0, learned_initial_state=False, bidirectional=False)
    x = frames()
    assert_close(apply(module, lstm_params(lstm), x), array(lstm(torch.tensor(x))[0]))


def test_the_state_passes_frames_that_were_not_observed():
    peer = TorchResidualBlstm(C, 8)
    seen = [0, 1, 4, 6, 7]
    mask = jnp.zeros((B, T), bool).at[:, jnp.array(seen)].set(True)
    x = np.where(mask[..., None], frames(), np.nan)
    states = apply(Blstm(4, 2, 0.1, True), peer.blstm_params(), x, mask)
    expected = array(peer.states(torch.tensor(x[:, seen])))
    assert_close(states[:, jnp.array(seen)], expected)
    # Forward, a gap holds what came before it; backward, what comes after.
    assert_close(states[:, 2, :4], states[:, 1, :4])
    assert_close(states[:, 2, 4:], states[:, 4, 4:])


@pytest.mark.parametrize("kind", ["tcn", "centred_tcn", "blstm", "none"])
def test_what_lies_under_the_mask_reaches_nothing(kind):
    module, x, mask = TemporalModel(kind, (6, 4), 3, 0.1), frames(), tail_mask()
    mask = mask.at[0, 3].set(False)
    params = random_weights(module)
    clean = jnp.where(mask[..., None], x, 0)
    poisoned = jnp.where(mask[..., None], x, jnp.nan)
    assert np.isfinite(apply(module, params, poisoned, mask)).all()
    assert_close(apply(module, params, poisoned, mask), apply(module, params, clean, mask))
    for a, b in zip(
        jax.tree.leaves(gradients(module, params, poisoned, mask)),
        jax.tree.leaves(gradients(module, params, clean, mask)),
        strict=True,
    ):
        assert_close(a, b)


@pytest.mark.parametrize("kind", ["tcn", "centred_tcn", "blstm"])
def test_one_window_of_one_frame(kind):
    module = TemporalModel(kind, (6, 4), 3, 0.1)
    x, params = frames()[:1, :1], random_weights(module)
    alone = apply(module, params, x)
    assert alone.shape == (1, 1, 4)
    padded = np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=np.nan)
    longer = apply(module, params, padded, jnp.arange(4)[None] < 1)
    assert_close(longer[:, :1], alone)


def test_a_frame_of_a_centred_tcn_sees_as_much_before_as_behind():
    module, x = TemporalModel("centred_tcn", (4, 4), 3, 0.1), frames(t=15)
    params = random_weights(module)
    changed = x.copy()
    changed[:, 7] += 1
    difference = apply(module, params, changed) - apply(module, params, x)
    moved = np.abs(np.asarray(difference)).max((0, 2))
    assert np.flatnonzero(moved).tolist() == [4, 5, 6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match="kernel_size 2 is even"):
        random_weights(TemporalModel("centred_tcn", (4,), 2, 0.1))


def test_the_blstms_program_does_not_grow_with_the_window():
    module = Blstm(4, 2, 0.1, True)
    params = random_weights(module)
    short, long = (
        _gradients.lower(module, params, jnp.asarray(frames(t=t)), jnp.ones((B, t), bool))
        for t in (7, 210)
    )
    assert len(short.as_text().splitlines()) == len(long.as_text().splitlines())


def test_dropout_acts_behind_each_convolution_and_between_layers():
    x, mask = jnp.asarray(frames()), jnp.ones((B, T), bool)

    @functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
    def dropped(module, params, key):
        rngs = {"dropout": key}
        return module.apply({"params": params}, x, mask, deterministic=False, rngs=rngs)

    for module in (Tcn((4,), 3, 0.5), Blstm(4, 2, 0.5, True)):
        a, b = (dropped(module, random_weights(module), jax.random.key(k)) for k in (1, 2))
        assert np.abs(a - b).max() > 1e-2
    one_layer = Blstm(4, 1, 0.5, True)
    params = random_weights(one_layer)
    assert_close(dropped(one_layer, params, jax.random.key(1)), apply(one_layer, params, x))


def test_bfloat16_is_near_float32():
    x, mask = frames(), tail_mask()
    for make in (
        lambda dtype: Tcn((8, 8), 3, 0.1, dtype=dtype),
        lambda dtype: ResidualBlstm(8, 2, 0.1, True, dtype=dtype),
    ):
        exact, rough = make(jnp.float32), make(jnp.bfloat16)
        params = random_weights(exact)
        rough_states = apply(rough, params, x, mask)
        assert rough_states.dtype == jnp.bfloat16
        exact_states = apply(exact, params, x, mask)
        np.testing.assert_allclose(rough_states.astype(jnp.float32), exact_states, atol=0.05)


def test_lengths_become_one_and_zeros_stay():
    x = jnp.asarray(frames()).at[0, 0].set(0)
    lengths = jnp.linalg.norm(l2_normalize(x), axis=-1)
    assert lengths[0, 0] == 0
    assert_close(lengths.ravel()[1:], 1)
    gradient = jax.grad(lambda x: l2_normalize(x)[0, 1].sum())(x)
    assert np.isfinite(gradient).all()


def test_what_cannot_be_built_says_so():
    x, mask = jnp.asarray(frames()), tail_mask()

    def build(module):
        jax.eval_shape(lambda: module.init(jax.random.key(0), x, mask, deterministic=True))

    with pytest.raises(ValueError, match="out_dim=7"):
        build(ResidualBlstm(7, 2, 0.1, True))
    with pytest.raises(ValueError, match="5 wide"):
        build(TemporalModel("blstm", (5,), 3, 0.1))
    with pytest.raises(ValueError, match="no widths for modality 'text'"):
        channels_of({"visual": (4,)}, "text")
    assert channels_of({"visual": (4,), "*": (3,)}, "text") == (3,)
    assert channels_of({"visual": (4,), "*": (3,)}, "visual") == (4,)
