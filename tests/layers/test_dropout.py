"""Dropout: scale and gradients of what stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.layers.dropout import Dropout


def test_what_stays_is_scaled_and_gradients_go_the_same_way():
    x = jnp.linspace(1.0, 2.0, 400).reshape(20, 20)
    drop = Dropout(0.3, False)

    def run(x):
        return drop.apply({}, x, rngs={"dropout": jax.random.key(2)})

    y, back = jax.vjp(run, x)
    (gradient,) = back(jnp.ones_like(x))
    mask = np.asarray(y) != 0
    np.testing.assert_allclose(y, np.where(mask, x / 0.7, 0), rtol=1e-5)
    np.testing.assert_allclose(gradient, np.where(mask, 1 / 0.7, 0), rtol=1e-5)
    assert 0.6 < mask.mean() < 0.8
    np.testing.assert_array_equal(Dropout(0.3, True).apply({}, x), x)


def test_a_rate_of_one_is_refused():
    with pytest.raises(ValueError, match="dropout rate 1 is not in"):
        Dropout(1, False).apply({}, jnp.ones(3), rngs={"dropout": jax.random.key(0)})
