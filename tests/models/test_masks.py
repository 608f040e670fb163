"""What was not observed changes nothing: not outputs, not the loss, not a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.rounding import assert_close
from tests.support.small_models import (
    FAST_COMPILE,
    SMALL,
    compiled,
    random_batch,
    random_params,
    small_model,
)

MODELS = pytest.mark.parametrize("name", SMALL)
# The recursion's parameters tie a model to its windows; others take windows of any length.
ANY_LENGTH = pytest.mark.parametrize(
    "name", [name for name in SMALL if not SMALL[name][1].get("num_steps")]
)
MODELS_AND_SINGLE_VECTORS = pytest.mark.parametrize(
    ("name", "single"),
    [
        *((name, ()) for name in SMALL),
        *((name, ("audio", "text")) for name in ("maven", "rjcma", "own") if name in SMALL),
    ],
)


def assert_same(actual, expected, atol=1e-6):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


def with_garbage(batch, garbage):
    """Replaces the features of everything that was not observed or is padding."""
    features, masks, frame_mask = batch
    replaced = {}
    for name, raw in features.items():
        seen = masks[name]
        seen = seen & frame_mask if seen.shape == frame_mask.shape else seen
        replaced[name] = jnp.where(seen[..., None], raw, garbage)
    return replaced, masks, frame_mask


@MODELS_AND_SINGLE_VECTORS
def test_features_that_were_not_observed_may_hold_anything(name, single):
    params, run = compiled(name, single)
    batch = with_garbage(random_batch(single=single), 0.5)
    expected = run(params, *batch)
    for garbage in (jnp.nan, jnp.inf, 1e4):
        assert_same(run(params, *with_garbage(batch, garbage)), expected)


@MODELS
def test_observed_features_do_matter(name):
    """The counterpart without which the test above would prove nothing."""
    params, run = compiled(name, ())
    features, masks, frame_mask = random_batch()
    before = run(params, features, masks, frame_mask)[0]
    for modality in features:
        seen = (masks[modality] & frame_mask)[..., None]
        moved = features | {modality: jnp.where(seen, features[modality] + 1, 0)}
        after = run(params, moved, masks, frame_mask)[0]
        assert np.abs(np.asarray(after - before)[np.asarray(frame_mask)]).max() > 1e-3


@ANY_LENGTH
def test_padding_a_window_leaves_the_valid_frames_alone(name):
    params, run = compiled(name, ())
    batch = random_batch()
    # Padding frames that claim to be observed are masked by frame_mask all the same.
    longer = [
        jax.tree.map(lambda x, v=v: jnp.pad(x, widths(x), constant_values=v), part)
        for part, v in zip(batch, (7.0, True, False))
    ]
    model = small_model(name)
    predict = jax.jit(
        lambda p, *batch: model.apply(p, *batch, train=False).va, compiler_options=FAST_COMPILE
    )
    padded = np.asarray(predict(params, *longer))
    valid = np.asarray(batch[2])
    expected = np.asarray(run(params, *batch)[0])[valid]
    assert_close(padded[:, : valid.shape[1]][valid], expected)


def widths(leaf):
    return ((0, 0), (0, 5)) + ((0, 0),) * (leaf.ndim - 2)


@MODELS
def test_windows_of_a_batch_do_not_see_each_other(name):
    params, run = compiled(name, ())
    batch = random_batch()
    order = jnp.array([2, 0, 1])
    expected = run(params, *batch)[0]
    permuted = run(params, *jax.tree.map(lambda x: x[order], batch))[0]
    np.testing.assert_allclose(permuted, expected[order], atol=5e-6)
    other = random_batch(seed=3)
    mixed = jax.tree.map(lambda a, b: a.at[0].set(b[0]), batch, other)
    np.testing.assert_allclose(run(params, *mixed)[0][1:], expected[1:], atol=5e-6)


@MODELS_AND_SINGLE_VECTORS
def test_a_modality_that_is_missing_altogether(name, single):
    params, run = compiled(name, single)
    features, masks, frame_mask = random_batch(single=single)
    masks = masks | {"audio": masks["audio"] & False}
    expected = run(params, features, masks, frame_mask)
    garbage = features | {"audio": features["audio"] * jnp.nan}
    assert_same(run(params, garbage, masks, frame_mask), expected)


@MODELS
def test_windows_without_anything_valid_are_finite_and_teach_nothing(name):
    params, run = compiled(name, ())
    features, masks, frame_mask = random_batch()
    nothing = jax.tree.map(lambda mask: mask & False, (masks, frame_mask))
    va, loss, gradients = run(params, features, *nothing)
    assert np.isfinite(va).all()
    assert float(loss) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_attending_to_padding_is_an_option_of_the_release():
    batch = random_batch()
    plain, released = (
        small_model("maven_released_mlp", attend_padding=attend) for attend in (False, True)
    )
    params = random_params(plain, *batch, train=False)
    first, second = (
        jax.jit(lambda p, *b, m=model: m.apply(p, *b, train=False).va)(params, *batch)
        for model in (plain, released)
    )
    assert np.isfinite(second).all()
    assert np.abs(first - second)[np.asarray(batch[2])].max() > 1e-3
