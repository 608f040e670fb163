"""Kernels on a GPU, in bfloat16, against the formulas in float32: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.kernels import fused_attention
from maven_jax.kernels.check import TOLERANCE, _draw, difference, differences
from maven_jax.kernels.device import platform
from maven_jax.layers import attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(platform() != "gpu", reason="JAX sees no GPU here"),
]


def test_every_kernel_of_this_gpu_is_its_formula():
    compared = dict(differences())
    assert {"attention", "LSTM", "causal convolution"} <= set(compared)
    assert max(compared.values()) < TOLERANCE


@pytest.mark.parametrize(
    ("frames", "biased", "mask"),
    [
        (300, False, "none"),
        (301, False, "none"),
        (300, False, "first"),
        (300, True, "none"),
        (301, True, "holes"),
    ],
)
def test_attention_by_cudnn_is_the_formula(frames, biased, mask):
    b, h, d = 3, 4, 64
    arguments = [_draw(b, frames, h, d, seed=i) for i in range(3)]
    arguments += [_draw(h, frames, frames, seed=3)] if biased else []
    first = jnp.arange(frames) < jnp.array([frames, 200, 1])[:, None]
    holes = jnp.asarray(np.random.default_rng(5).random((b, frames)) < 0.7)
    key_mask = {"none": None, "first": first, "holes": holes}[mask]

    def fast(query, key, value, bias=None):
        assert fused_attention.serves(query, key)
        return attention.attend(query, key, value, key_mask, bias, valid_first=mask == "first")

    def formula(query, key, value, bias=None):
        return attention._attend(query, key, value, key_mask, bias, None)

    assert difference(fast, formula, arguments) < TOLERANCE


@pytest.mark.parametrize("valid_first", [False, True])
def test_a_window_without_keys_gives_finite_values_and_gradients(valid_first):
    arguments = [_draw(2, 300, 4, 64, seed=i) for i in range(3)]
    mask = jnp.ones((2, 300), bool).at[1].set(False)

    def run(*arguments):
        return attention.attend(*arguments, mask, valid_first=valid_first)

    y, back = jax.vjp(run, *arguments)
    assert all(jnp.isfinite(x).all() for x in (y, *back(jnp.ones_like(y))))
