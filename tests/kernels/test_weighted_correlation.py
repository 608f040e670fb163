"""Correlations computed again in turns against the formula, in value, gradients and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from maven_jax.kernels import weighted_correlation as kernel
from tests.support.rounding import assert_close


def inputs(b=8, t=5, c=6, d=7, k=3):
    draw = np.random.default_rng(0)
    shapes = ((b, t, c), (b, t, d), (k, d))
    return tuple(jnp.asarray(draw.standard_normal(s), jnp.float32) for s in shapes)


def with_gradients(function, *arrays):
    @jax.jit
    def run(*arrays):
        y, back = jax.vjp(function, *arrays)
        return y, *back(jnp.cos(y))

    return run(*arrays)


@pytest.mark.parametrize("turns", [1, 2, 8])
def test_values_and_gradients_are_those_of_the_formula(turns):
    recomputed = with_gradients(lambda *a: kernel.recomputed(turns, *a), *inputs())
    for value, expected in zip(recomputed, with_gradients(kernel.plain, *inputs()), strict=True):
        assert_close(value, expected)


def test_the_gradient_keeps_no_correlations():
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs(b=64, t=2, c=64, d=64)]

    def temporary_bytes(function):
        gradient = jax.jit(jax.grad(lambda *a: function(*a).sum(), argnums=(0, 1, 2)))
        return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    in_turns = temporary_bytes(lambda *a: kernel.recomputed(16, *a))
    assert in_turns < temporary_bytes(kernel.plain) / 2


def test_only_tpus_compute_again_and_large_batches_in_turns(monkeypatch):
    def steps():
        jax.clear_caches()
        gradient = jax.grad(lambda *a: kernel.weighted_correlation(*a).sum())
        return str(jax.make_jaxpr(gradient)(*inputs()))

    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        assert "scan[" not in steps()
        monkeypatch.setattr(kernel, "platform", lambda: "tpu")
        assert "length=1" in steps()
        monkeypatch.setattr(kernel, "TURN_BYTES", 2 * 6 * 7 * 4)
        assert "length=4" in steps()
