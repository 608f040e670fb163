"""The loop over a batch against the batch at once, in value and gradients; when there is a loop."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.kernels.by_window import CACHE_BYTES, by_window
from tests.support.rounding import assert_close


class Attend(nn.Module):
    """Products with a parameter and between arrays, and a tree of arrays of which one is absent."""

    at_once: int = 1
    num_bytes: int = CACHE_BYTES + 1

    @nn.compact
    def __call__(self, x, keep):
        sizes = dict(num_bytes=self.num_bytes, at_once=self.at_once)
        return by_window(Attend._attend, self, x, (keep, None), **sizes)

    def _attend(self, x, masks):
        keys = jnp.tanh(nn.Dense(5, name="keys")(x))
        return jnp.where(masks[0][..., None], jnp.tanh(keys @ keys.mT) @ x, 0)


def inputs(b=6):
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.standard_normal((b, 7, 4)), jnp.float32)
    return x, jnp.asarray(draw.random((b, 7)) < 0.8)


def with_gradients(module, params, x, keep):
    @jax.jit
    def run(params, x):
        y, back = jax.vjp(lambda params, x: module.apply(params, x, keep), params, x)
        return y, *back(jnp.cos(y))

    return run(params, x)


def loops(module, *arguments):
    return str(jax.make_jaxpr(module.apply)(*arguments)).count("scan[")


def test_the_gradients_of_the_loop_need_no_memory_for_what_they_compute_again():
    x, mask = jnp.zeros((32, 64, 4)), jnp.ones((32, 64), bool)

    def temporary_bytes(module):
        params = module.init(jax.random.key(0), x, mask)
        gradient = jax.jit(jax.grad(lambda params: module.apply(params, x, mask).sum()))
        return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(Attend()) < temporary_bytes(Attend(num_bytes=0)) / 2


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_values_and_gradients_are_those_of_the_batch_at_once(at_once):
    looped, plain = Attend(at_once), Attend(num_bytes=0)
    params = plain.init(jax.random.key(0), *inputs())
    assert loops(looped, params, *inputs()) == 1
    assert loops(plain, params, *inputs()) == 0
    for a, b in zip(
        jax.tree.leaves(with_gradients(looped, params, *inputs())),
        jax.tree.leaves(with_gradients(plain, params, *inputs())),
        strict=True,
    ):
        assert_close(a, b)


def test_parameters_start_as_those_of_the_batch_at_once():
    looped, plain = (Attend(num_bytes=n) for n in (CACHE_BYTES + 1, 0))
    jax.tree.map(
        np.testing.assert_array_equal,
        *(module.init(jax.random.key(0), *inputs()) for module in (looped, plain)),
    )


def test_small_batches_others_than_multiples_and_several_devices_take_no_loop():
    params = Attend().init(jax.random.key(0), *inputs())
    assert loops(Attend(), params, *inputs())
    assert not loops(Attend(num_bytes=CACHE_BYTES), params, *inputs())
    assert not loops(Attend(at_once=4), params, *inputs())
    assert not loops(Attend(at_once=6), params, *inputs())
    mesh = jax.sharding.AbstractMesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh):
        assert not loops(Attend(), params, *inputs())
