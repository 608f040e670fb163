"""Losses: values, gradients, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.concordance import CccState
from maven_jax.errors import UserError
from maven_jax.layers import circumplex
from maven_jax.training import losses
from maven_jax.types import Prediction

ALL = {"ccc": 1.0, "ccc_batch": 0.5, "mse": 0.1, "polar_mse": 0.2, "polar_mse_unwrapped": 0.3}


def batch(b=4, t=30, seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    targets = jax.random.uniform(keys[0], (b, t, 2), minval=-1, maxval=1)
    polar = circumplex.to_polar(targets) + 0.3 * jax.random.normal(keys[1], (b, t, 2))
    return polar, targets, jax.random.bernoulli(keys[2], 0.8, (b, t))


def predict(polar):
    return Prediction(va=circumplex.from_polar(polar), polar=polar)


def value_and_grad(loss, polar, targets, mask):
    return jax.value_and_grad(lambda p: loss(predict(p), targets, mask)[0])(polar)


def test_batch_ccc_loss_is_one_minus_the_score():
    polar, targets, mask = batch()
    loss = losses.ccc_loss(predict(polar), targets, mask, reduction="batch")
    state = CccState.of(predict(polar).va.reshape(-1, 2), targets.reshape(-1, 2), mask.reshape(-1))
    np.testing.assert_allclose(loss, 1 - state.compute().ccc.mean(), atol=1e-6)


def test_window_ccc_loss_is_the_mean_over_windows_with_enough_frames():
    polar, targets, mask = batch()
    mask = mask.at[1].set(False).at[2].set(jnp.arange(30) == 3)
    loss = losses.ccc_loss(predict(polar), targets, mask, reduction="window")
    scores = CccState.of(predict(polar).va, targets, mask).compute().ccc
    np.testing.assert_allclose(loss, 1 - scores[jnp.array([0, 3])].mean(), atol=1e-6)


@pytest.mark.parametrize("reduction", ["window", "batch"])
def test_ccc_loss_has_the_gradient_of_finite_differences(reduction):
    _, targets, mask = batch(b=2, t=8)
    va = targets + 0.3 * jax.random.normal(jax.random.key(3), targets.shape)

    def loss(va):
        return losses.ccc_loss(Prediction(va=va), targets, mask, reduction=reduction)

    gradient = jax.grad(loss)(va)
    direction = jax.random.normal(jax.random.key(4), va.shape)
    step = 1e-2
    slope = (loss(va + step * direction) - loss(va - step * direction)) / (2 * step)
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=5e-3)
    assert float(jnp.abs(gradient).max()) > 1e-3


def test_descending_the_ccc_loss_reaches_the_targets():
    _, targets, mask = batch()
    va = 0.1 * jax.random.normal(jax.random.key(5), targets.shape)

    @jax.jit
    def step(va):
        loss, gradient = jax.value_and_grad(
            lambda v: losses.ccc_loss(Prediction(va=v), targets, mask, reduction="batch")
        )(va)
        return va - 20 * gradient, loss

    for _ in range(300):
        va, loss = step(va)
    assert float(loss) < 0.02


@pytest.mark.parametrize("constant", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("which", ["predictions", "targets", "both"])
def test_constant_tracks_are_finite_and_score_one(constant, which):
    _, targets, mask = batch()
    va = jax.random.uniform(jax.random.key(6), targets.shape)
    va = va if which == "targets" else jnp.full_like(va, constant)
    targets = targets if which == "predictions" else jnp.full_like(targets, constant)
    for reduction in ("window", "batch"):
        loss, gradient = jax.value_and_grad(
            lambda v, r=reduction: losses.ccc_loss(Prediction(va=v), targets, mask, reduction=r)
        )(va)
        np.testing.assert_allclose(loss, 1, atol=1e-4)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() < 1e3


def test_masked_frames_change_no_loss_and_no_gradient():
    polar, targets, mask = batch()
    loss = losses.make_loss(ALL)
    value, gradient = value_and_grad(loss, polar, targets, mask)
    garbage = jnp.where(mask[..., None], targets, jnp.nan)
    dirty_value, dirty = value_and_grad(
        loss, jnp.where(mask[..., None], polar, jnp.nan), garbage, mask
    )
    np.testing.assert_array_equal(value, dirty_value)
    valid = np.asarray(mask)
    np.testing.assert_array_equal(np.asarray(gradient)[valid], np.asarray(dirty)[valid])
    np.testing.assert_array_equal(np.asarray(gradient)[~valid], 0)


def test_padding_a_batch_changes_no_loss():
    polar, targets, mask = batch()
    loss = losses.make_loss(ALL)
    longer = [jnp.pad(a, ((0, 2), (0, 5)) + ((0, 0),) * (a.ndim - 2)) for a in batch()]
    np.testing.assert_allclose(
        loss(predict(longer[0]), *longer[1:])[0], loss(predict(polar), targets, mask)[0], rtol=1e-5
    )


def test_a_batch_without_valid_frames_has_zero_loss_and_gradients():
    polar, targets, mask = batch()
    value, gradient = value_and_grad(losses.make_loss(ALL), polar, targets, mask & False)
    assert float(value) == 0
    np.testing.assert_array_equal(gradient, 0)


def test_mse_is_the_weighted_mean_over_valid_frames():
    polar, targets, mask = batch()
    errors = np.asarray(predict(polar).va - targets)[np.asarray(mask)] ** 2
    valence, arousal = errors.mean(axis=0)
    found = losses.mse(predict(polar), targets, mask, dimension_weights=(3.0, 1))
    np.testing.assert_allclose(found, (3 * valence + arousal) / 4, rtol=1e-5)


def test_only_the_wrapped_angle_loss_has_no_seam():
    targets = circumplex.from_polar(jnp.array([[[0.5, np.pi - 0.01]]]))
    prediction = predict(jnp.array([[[0.5, -np.pi + 0.01]]]))
    mask = jnp.ones((1, 1), bool)
    wrapped = losses.polar_mse(prediction, targets, mask, wrapped=True)
    released = losses.polar_mse(prediction, targets, mask, wrapped=False)
    np.testing.assert_allclose(wrapped, 0.02**2 / 2, rtol=1e-2)
    np.testing.assert_allclose(released, (2 * np.pi - 0.02) ** 2 / 2, rtol=1e-3)


def test_the_released_ccc_term_counts_but_does_not_teach():
    polar, targets, mask = batch()
    terms = {"polar_mse_unwrapped": 1.0, "ccc_batch": 0.1}
    released = losses.make_loss(terms, stop_ccc_gradient=True)
    value, gradient = value_and_grad(released, polar, targets, mask)
    only_mse = losses.make_loss({"polar_mse_unwrapped": 1})
    mse_value, mse_gradient = value_and_grad(only_mse, polar, targets, mask)
    np.testing.assert_allclose(gradient, mse_gradient, rtol=1e-6)
    assert float(value) > float(mse_value) + 1e-3
    _, taught = value_and_grad(losses.make_loss(terms), polar, targets, mask)
    assert np.abs(taught - gradient).max() > 1e-5


def test_the_parts_add_up_and_weigh_dimensions():
    polar, targets, mask = batch()
    loss, parts = losses.make_loss(ALL)(predict(polar), targets, mask)
    assert set(parts) == set(ALL)
    np.testing.assert_allclose(loss, sum(ALL[n] * parts[n] for n in parts), rtol=1e-6)
    only_arousal = losses.make_loss({"ccc": 1, "mse": 1}, dimension_weights=(0, 1))
    gradient = jax.grad(lambda va: only_arousal(Prediction(va=va), targets, mask)[0])(
        predict(polar).va
    )
    np.testing.assert_array_equal(gradient[..., 0], 0)
    assert np.abs(gradient[..., 1]).max() > 0


def test_mistakes_are_named():
    with pytest.raises(UserError, match="did you mean 'mse'"):
        losses.make_loss({"msee": 1.0})
    with pytest.raises(UserError, match="weights"):
        losses.make_loss({"mse": 0.0})
    with pytest.raises(UserError, match="dimension_weights"):
        losses.make_loss({"mse": 1.0}, dimension_weights=(0, 0))
    polar, targets, mask = batch()
    with pytest.raises(UserError, match="polar head"):
        losses.make_loss({"polar_mse": 1})(Prediction(va=polar), targets, mask)
