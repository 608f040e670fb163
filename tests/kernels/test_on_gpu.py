"""Kernels on a GPU, in bfloat16, against the formulas in float32: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.kernels import causal_conv, fused_attention, lstm, lstm_triton
from maven_jax.kernels.device import platform
from maven_jax.layers import attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(platform() != "gpu", reason="JAX sees no GPU here"),
]


def draw(*shape, seed=0, scale=1.0):
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return jnp.asarray(values, jnp.bfloat16)


def assert_equal_but_for_rounding(fast, formula, arguments, by):
    """bfloat16 rounds to 1 in 256: results of many such terms are a few of these off."""

    def run(function, dtype):
        y, back = jax.vjp(function, *(x.astype(dtype) for x in arguments))
        return y, *back(by.astype(y.dtype))

    with jax.default_matmul_precision("float32"):
        expected = jax.jit(lambda: run(formula, jnp.float32))()
    for a, b in zip(jax.jit(lambda: run(fast, jnp.bfloat16))(), expected, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.isfinite(a).all()
        assert np.linalg.norm(a - b) < 0.015 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("frames", "biased", "mask"),
    [
        (300, False, "none"),
        (301, False, "none"),
        (300, False, "first"),
        (301, True, "first"),
        (301, True, "holes"),
    ],
)
def test_attention(frames, biased, mask):
    b, h, d = 3, 4, 64
    arguments = [draw(b, frames, h, d, seed=i) for i in range(3)]
    arguments += [draw(h, frames, frames, seed=3)] if biased else []
    by = draw(b, frames, h, d, seed=4)
    first = jnp.arange(frames) < jnp.array([frames, 200, 1])[:, None]
    holes = jnp.asarray(np.random.default_rng(5).random((b, frames)) < 0.7)
    key_mask = {"none": None, "first": first, "holes": holes}[mask]

    def fast(query, key, value, bias=None):
        assert fused_attention.serves(query, key)
        return attention.attend(query, key, value, key_mask, bias, valid_first=mask == "first")

    def formula(query, key, value, bias=None):
        return attention._attend(query, key, value, key_mask, bias, None)

    assert_equal_but_for_rounding(fast, formula, arguments, by)


@pytest.mark.parametrize("valid_first", [False, True])
def test_a_window_without_keys_gives_finite_values_and_gradients(valid_first):
    arguments = [draw(2, 300, 4, 64, seed=i) for i in range(3)]
    mask = jnp.ones((2, 300), bool).at[1].set(False)

    def run(*arguments):
        return attention.attend(*arguments, mask, valid_first=valid_first)

    y, back = jax.vjp(run, *arguments)
    assert all(jnp.isfinite(x).all() for x in (y, *back(jnp.ones_like(y))))


@pytest.mark.parametrize(("b", "h", "reverse"), [(40, 256, (False, True)), (16, 64, (True,))])
def test_lstm(b, h, reverse):
    n, t = len(reverse), 16
    initial = [draw(n, b, h, seed=i) for i in (0, 1)]
    arguments = [draw(n, b, t, 4 * h, seed=2), draw(n, h, 4 * h, scale=h**-0.5, seed=3)]
    mask = jnp.asarray(np.random.default_rng(5).random((b, t)) < 0.7)

    def fast(frames, recurrent):
        assert lstm_triton.serves(list(recurrent))
        return run(frames, recurrent)

    def formula(frames, recurrent):
        assert not lstm_triton.serves(list(recurrent))  # float32
        return run(frames, recurrent)

    def run(frames, recurrent):
        start = zip(*(x.astype(jnp.float32) for x in initial), strict=True)
        states = lstm.run_lstms(reverse, list(frames), list(recurrent), list(start), mask)
        return jnp.stack(states)

    assert_equal_but_for_rounding(fast, formula, arguments, draw(n, b, t, h, seed=4))


@pytest.mark.parametrize("dilation", [1, 8])
def test_convolution(dilation):
    arguments = [draw(4, 300, 256), draw(5, 256, 128, scale=0.03, seed=1)]

    def formula(x, kernel):
        return causal_conv._direct(x, kernel, dilation)

    assert_equal_but_for_rounding(
        lambda x, kernel: causal_conv.causal_conv(x, kernel, dilation),
        formula,
        arguments,
        draw(4, 300, 128, seed=2),
    )
