"""Polar coordinates of emotion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.layers import circumplex


@pytest.mark.parametrize(
    ("va", "intensity", "degrees"),
    [((1, 0), 1, 0), ((0, 0.5), 0.5, 90), ((-1, 0), 1, 180), ((0.3, -0.3), 0.3 * 2**0.5, -45)],
)
def test_angles_count_from_positive_valence_towards_positive_arousal(va, intensity, degrees):
    polar = circumplex.to_polar(jnp.asarray(va, jnp.float32))
    np.testing.assert_allclose(polar, (intensity, np.deg2rad(degrees)), atol=1e-6)


def test_there_and_back_is_the_identity():
    va = jax.random.uniform(jax.random.key(0), (5, 40, 2), minval=-1, maxval=1)
    np.testing.assert_allclose(circumplex.from_polar(circumplex.to_polar(va)), va, atol=1e-6)


def test_negative_intensity_names_the_opposite_point():
    np.testing.assert_allclose(
        circumplex.from_polar(jnp.array([-0.4, 0.3])),
        circumplex.from_polar(jnp.array([0.4, 0.3 + np.pi])),
        atol=1e-6,
    )


def test_the_origin_has_zero_polar_coordinates_and_finite_gradients():
    origin = jnp.zeros((3, 2))
    np.testing.assert_array_equal(circumplex.to_polar(origin), 0)
    gradient = jax.jacobian(lambda va: circumplex.to_polar(va).sum(axis=0))(origin)
    assert np.isfinite(gradient).all()


def test_gradients_away_from_the_origin_are_those_of_the_formulas():
    va = jnp.array([0.3, -0.4])
    jacobian = jax.jacobian(circumplex.to_polar)(va)
    np.testing.assert_allclose(jacobian, [[0.6, -0.8], [0.4 / 0.25, 0.3 / 0.25]], rtol=1e-5)


def test_angle_difference_goes_the_shorter_way_and_keeps_its_gradient():
    first = jnp.array([3.1, -3.1, 0.5, 7.0])
    second = jnp.array([-3.1, 3.1, 0.2, 0.5])
    expected = [6.2 - 2 * np.pi, 2 * np.pi - 6.2, 0.3, 6.5 - 2 * np.pi]
    np.testing.assert_allclose(circumplex.angle_difference(first, second), expected, atol=1e-6)
    gradient = jax.grad(lambda x: circumplex.angle_difference(x, second).sum())(first)
    np.testing.assert_array_equal(gradient, 1)
