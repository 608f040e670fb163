"""The comparison of kernels with formulas sees what is wrong with a kernel."""

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.kernels.check import TOLERANCE, _draw, difference

ARGUMENTS = [_draw(8, 16, seed=0), _draw(16, 4, seed=1)]


def product(x, kernel):
    return jnp.tanh(x @ kernel)


def test_rounding_is_no_difference_and_a_wrong_value_gradient_or_nan_is():
    assert 0 < difference(product, product, ARGUMENTS) < TOLERANCE
    assert difference(lambda x, k: 1.1 * product(x, k), product, ARGUMENTS) > 2 * TOLERANCE

    def other_gradient(x, kernel):
        return product(jax.lax.stop_gradient(x) / 2 + x / 2, kernel)

    assert difference(other_gradient, product, ARGUMENTS) > 2 * TOLERANCE

    def with_nan(x, kernel):
        return product(x, kernel).at[0, 0].set(jnp.nan)

    assert np.isnan(difference(with_nan, product, ARGUMENTS))
