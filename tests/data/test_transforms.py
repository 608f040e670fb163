"""Standardising, noise and dropped modalities: what happens to a batch before the model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.data.transforms import (
    FeatureStatistics,
    InputTransform,
    change_speed,
    drop_modalities,
)
from maven_jax.errors import UserError
from maven_jax.types import Batch


def batch(x, mask) -> Batch:
    b, t = x.shape[:2]
    return Batch(
        features={"visual": jnp.asarray(x, jnp.float16)},
        modality_masks={"visual": jnp.asarray(mask)},
        frame_mask=jnp.ones((b, t), bool),
        targets=jnp.zeros((b, t, 2)),
        target_mask=jnp.ones((b, t), bool),
        window=jnp.arange(b),
    )


def transform(**changes) -> InputTransform:
    values = dict(
        standardize="store",
        noise_std=0.0,
        noise_always=False,
        offset_std=0.0,
        video_offset_std=0.0,
        channel_dropout=0.0,
        speed=0.0,
        modality_dropout=0.0,
    )
    return InputTransform(**(values | changes))


STATISTICS = FeatureStatistics(
    mean={"visual": jnp.array([1.0, -2.0])}, std={"visual": jnp.array([2.0, 0.5])}
)
KEY = jax.random.key(0)


def test_store_statistics_standardise_each_channel():
    x = np.random.default_rng(0).normal(size=(2, 5, 2))
    out = transform()(batch(x, np.ones((2, 5), bool)), STATISTICS, KEY, train=True)
    np.testing.assert_allclose(out.features["visual"], (x - [1, -2]) / [2, 0.5], atol=5e-3)


@pytest.mark.parametrize("standardize", ["store", "window", "none"])
def test_unobserved_frames_give_zero_and_change_nothing_even_as_nan(standardize):
    x = np.random.default_rng(0).normal(size=(2, 6, 2))
    mask = np.random.default_rng(1).random((2, 6)) < 0.6
    poisoned = np.where(mask[..., None], x, np.nan)
    t = transform(standardize=standardize)
    clean = t(batch(x, mask), STATISTICS, KEY, train=False).features["visual"]
    out = t(batch(poisoned, mask), STATISTICS, KEY, train=False).features["visual"]
    np.testing.assert_array_equal(out, clean)
    assert not np.asarray(out)[~mask].any()


def test_window_standardisation_is_over_all_observed_values_of_a_window():
    x = np.random.default_rng(0).normal(3, 2, size=(2, 50, 2))
    mask = np.random.default_rng(1).random((2, 50)) < 0.7
    out = transform(standardize="window")(batch(x, mask), STATISTICS, KEY, train=False)
    for row, observed in zip(np.asarray(out.features["visual"]), mask):
        assert row[observed].mean() == pytest.approx(0, abs=1e-3)
        assert row[observed].std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("always", "train", "noisy"), [(False, True, True), (False, False, False), (True, False, True)]
)
def test_noise_is_for_training_unless_asked_for(always, train, noisy):
    t = transform(standardize="none", noise_std=0.1, noise_always=always)
    out = t(batch(np.zeros((2, 400, 2)), np.ones((2, 400), bool)), STATISTICS, KEY, train=train)
    assert np.asarray(out.features["visual"]).std() == pytest.approx(0.1 if noisy else 0, abs=0.01)


def test_noise_in_evaluation_belongs_to_the_window_not_to_its_place_in_a_batch():
    t = transform(standardize="none", noise_std=0.1, noise_always=True)
    b = batch(np.zeros((4, 30, 2)), np.ones((4, 30), bool))
    whole = t(b, STATISTICS, KEY, train=False).features["visual"]
    part = t(jax.tree.map(lambda x: x[2:], b), STATISTICS, KEY, train=False).features["visual"]
    np.testing.assert_array_equal(part, whole[2:])
    assert np.abs(np.asarray(whole[0] - whole[1])).max() > 0.1


def test_an_offset_is_shared_by_the_frames_of_a_window_and_only_added_in_training():
    t = transform(standardize="none", offset_std=0.5)
    b = batch(np.zeros((400, 3, 2)), np.ones((400, 3), bool))
    out = np.asarray(t(b, STATISTICS, KEY, train=True).features["visual"])
    np.testing.assert_array_equal(out, np.repeat(out[:, :1], 3, 1))
    assert out[:, 0].std() == pytest.approx(0.5, abs=0.05)
    assert not np.asarray(t(b, STATISTICS, KEY, train=False).features["visual"]).any()


def test_dropped_modalities_leave_at_least_one_that_was_observed():
    rng = np.random.default_rng(0)
    present = rng.random((4000, 3)) < 0.7
    masks = {m: jnp.asarray(np.repeat(present[:, i, None], 4, 1)) for i, m in enumerate("abc")}
    out = drop_modalities(KEY, masks, 0.4)
    remaining = np.stack([np.asarray(out[m]).any(1) for m in "abc"], 1)
    assert not (remaining & ~present).any()
    np.testing.assert_array_equal(remaining.any(1), present.any(1))
    alone = present.sum(1) == 1
    np.testing.assert_array_equal(remaining[alone], present[alone])
    three = present.all(1)
    # One of three always stays: the share of dropped ones is below the rate, and far from 0.
    assert 0.25 < 1 - remaining[three].mean() < 0.4


def test_no_modality_is_dropped_outside_training():
    t = transform(modality_dropout=0.9)
    b = batch(np.ones((8, 3, 2)), np.ones((8, 3), bool))
    b = b.replace(
        features=b.features | {"audio": b.features["visual"]},
        modality_masks=b.modality_masks | {"audio": b.modality_masks["visual"]},
    )
    two = FeatureStatistics(
        mean=STATISTICS.mean | {"audio": STATISTICS.mean["visual"]},
        std=STATISTICS.std | {"audio": STATISTICS.std["visual"]},
    )
    assert all(m.all() for m in t(b, two, KEY, train=False).modality_masks.values())
    assert not all(m.all() for m in t(b, two, KEY, train=True).modality_masks.values())


def with_pixels() -> Batch:
    rng = np.random.default_rng(0)
    b = batch(rng.normal(size=(3, 5, 2)), rng.random((3, 5)) < 0.8)
    return b.replace(
        features={
            "audio": b.features["visual"] * 3,
            "visual": b.features["visual"],
            "crops": jnp.asarray(rng.integers(0, 256, (3, 5, 4)), jnp.uint8),
        },
        modality_masks=dict.fromkeys(("audio", "visual", "crops"), b.modality_masks["visual"]),
    )


def statistics_of(*names: str) -> FeatureStatistics:
    return FeatureStatistics(
        mean=dict.fromkeys(names, STATISTICS.mean["visual"]),
        std=dict.fromkeys(names, STATISTICS.std["visual"]),
    )


def test_each_modality_may_be_standardised_in_its_own_way():
    b, statistics = with_pixels(), statistics_of("audio", "visual")
    mixed = transform(standardize={"audio": "window", "visual": "none", "other": "store"})
    out = mixed(b, statistics, KEY, train=False).features
    for name, how in (("audio", "window"), ("visual", "none")):
        alone = transform(standardize=how)(b, statistics, KEY, train=False).features[name]
        np.testing.assert_array_equal(out[name], alone)
    assert (
        np.abs(
            out["visual"] - transform()(b, statistics, KEY, train=False).features["visual"]
        ).max()
        > 1
    )


def test_pixels_are_left_as_they_are_but_for_masked_frames():
    b = with_pixels()
    noisy = transform(noise_std=5.0, noise_always=True, offset_std=5.0)
    out = noisy(b, statistics_of("audio", "visual"), KEY, train=True)
    assert out.features["crops"].dtype == jnp.uint8
    seen = np.asarray(b.modality_masks["crops"])[..., None]
    np.testing.assert_array_equal(out.features["crops"], np.where(seen, b.features["crops"], 0))
    assert not seen.all()
    assert out.features["audio"].dtype == jnp.float32


def test_a_modality_that_standardize_does_not_name_is_refused():
    t = transform(standardize={"visual": "store"})
    with pytest.raises(UserError, match=r"config\.inputs\.standardize has visual, but not audio"):
        t(with_pixels(), statistics_of("audio", "visual"), KEY, train=False)
    with pytest.raises(UserError, match=r"config\.inputs\.standardize\.visual='batch'"):
        transform(standardize={"visual": "batch"})


def test_impossible_values_are_refused():
    with pytest.raises(UserError, match="standardize"):
        transform(standardize="batch")
    with pytest.raises(UserError, match="modality_dropout"):
        transform(modality_dropout=1.0)


def test_channels_that_are_dropped_are_zero_for_a_whole_window():
    t = transform(standardize="none", channel_dropout=0.25)
    b = batch(np.ones((400, 3, 2)), np.ones((400, 3), bool))
    x = np.asarray(t(b, STATISTICS, KEY, train=True).features["visual"])
    np.testing.assert_array_equal(x, np.repeat(x[:, :1], 3, 1))
    np.testing.assert_allclose(np.unique(x), [0, 1 / 0.75], rtol=1e-6)
    assert (x == 0).mean() == pytest.approx(0.25, abs=0.05)
    assert (np.asarray(t(b, STATISTICS, KEY, train=False).features["visual"]) == 1).all()


def test_a_change_of_speed_moves_labels_with_their_frames():
    frames = 41
    time = np.arange(frames, dtype=np.float32)
    x = np.broadcast_to(time[None, :, None], (64, frames, 1))
    windows = jax.tree.map(
        jnp.asarray,
        Batch(
            features={"a": x, "single": x[:, :1]},
            modality_masks={"a": x[..., 0] != 7, "single": x[:, :1, 0] == 0},
            frame_mask=np.ones((64, frames), bool),
            targets=np.concatenate([x, -x], -1),
            target_mask=x[..., 0] != 9,
            window=np.arange(64, dtype=np.int32),
        ),
    )
    changed = change_speed(KEY, windows, 0.5)
    moved = np.asarray(changed.features["a"][..., 0])
    np.testing.assert_array_equal(changed.targets, np.stack([moved, -moved], -1))
    inside = np.asarray(changed.frame_mask)
    np.testing.assert_array_equal(changed.modality_masks["a"], moved != 7)
    np.testing.assert_array_equal(changed.target_mask, (moved != 9) & inside)
    np.testing.assert_array_equal(changed.features["single"], x[:, :1])
    np.testing.assert_array_equal(moved[:, frames // 2], frames // 2)
    slopes = (moved[:, 30] - moved[:, 10]) / 20
    np.testing.assert_allclose([slopes.min(), slopes.max()], [1 / 1.5, 1.5], atol=0.08)
    assert inside[slopes < 0.95].all()
    assert not inside[slopes > 1.1].all(1).any()


def test_offsets_of_videos_lie_along_the_directions_given():
    x, mask = np.zeros((400, 3, 2)), np.ones((400, 3), bool)
    draws = transform(video_offset_std=2.0, directions={"visual": np.array([[0.6, 0.8]])})
    out = draws(batch(x + [1, -2], mask), STATISTICS, KEY, train=True).features["visual"]
    assert (out == out[:, :1]).all()
    along = np.asarray(out[:, 0]) @ [0.6, 0.8]
    np.testing.assert_allclose(out[:, 0], along[:, None] * [0.6, 0.8], atol=1e-5)
    assert along.std() == pytest.approx(2, rel=0.15)
    with pytest.raises(UserError, match="video_offset_std needs"):
        transform(video_offset_std=1.0, standardize={"visual": "window"})
