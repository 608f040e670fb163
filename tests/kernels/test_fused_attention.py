"""Attention that computes its scores again against the formula, in value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.kernels.fused_attention import attend_again
from maven_jax.layers.attention import _attend
from tests.support.rounding import float64

B, T, S, H, K = 3, 5, 7, 2, 4


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("bias", [None, (H, T, S), (B, 1, T, S)])
def test_values_and_gradients_are_those_of_the_formula(masked, dropped, bias):
    draw = np.random.default_rng(0)
    shapes = [(B, T, H, K), (B, S, H, K), (B, S, H, K)] + ([bias] if bias else [])
    mask = jnp.asarray(draw.random((B, S)) < 0.6).at[1].set(False) if masked else None
    drawn = (jnp.asarray(draw.random((B, H, T, S)) < 0.7), 0.7) if dropped else None
    by = draw.standard_normal((B, T, H, K))

    def run(function, *arrays):
        def attend(query, key, value, bias=None):
            return function(query, key, value, mask, bias, drawn)

        y, back = jax.vjp(attend, *arrays)
        return y, *back(jnp.asarray(by, y.dtype))

    with float64():
        arrays = [jnp.asarray(draw.standard_normal(shape)) for shape in shapes]
        again, formula = (run(function, *arrays) for function in (attend_again, _attend))
    for a, b in zip(again, formula, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
