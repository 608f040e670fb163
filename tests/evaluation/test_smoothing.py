"""The box filter at the end of prediction."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.evaluation.smoothing import as_widths, box_filter


def naive(values: np.ndarray, width: int) -> np.ndarray:
    if width == 0:
        return values
    first = [i - width // 2 for i in range(len(values))]
    return np.array([values[max(f, 0) : f + width].astype(np.float64).mean() for f in first])


@pytest.mark.parametrize("n", [1, 2, 19, 20, 21, 300])
@pytest.mark.parametrize("frames", [(20, 50), (0, 3), (1, 0), (2, 1), (7, 1000)])
def test_it_is_the_mean_of_the_frames_around_that_exist(n, frames):
    track = np.random.default_rng(0).uniform(-1, 1, (n, 2)).astype(np.float32)
    before = track.copy()
    out = box_filter(track, frames)
    assert out.dtype == np.float32
    for column, width in enumerate(frames):
        np.testing.assert_allclose(out[:, column], naive(track[:, column], width), atol=1e-7)
    np.testing.assert_array_equal(track, before)


def test_an_even_width_takes_one_more_frame_from_before():
    track = np.zeros((9, 2), np.float32)
    track[4] = 1
    out = box_filter(track, (3, 4))
    np.testing.assert_allclose(out[:, 0] * 3, [0, 0, 0, 1, 1, 1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(out[:, 1] * 4, [0, 0, 0, 1, 1, 1, 1, 0, 0], atol=1e-6)


def test_ends_do_not_fade_and_the_range_is_kept_in_an_hour_of_video():
    track = np.full((100_000, 2), [1.0, -1.0], np.float32)
    np.testing.assert_array_equal(box_filter(track, (20, 50)), track)
    random = np.random.default_rng(0).choice(np.float32([-1, 1, 0.99999994]), (100_000, 2))
    assert np.abs(box_filter(random, (3, 2))).max() <= 1


def test_widths_of_0_and_1_change_nothing():
    track = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    np.testing.assert_array_equal(box_filter(track, (0, 1)), track)


@pytest.mark.parametrize("frames", [(-1, 0), (0, True)])
def test_impossible_widths_are_refused(frames):
    with pytest.raises(UserError, match=r"^here=\(.*expected two numbers of frames"):
        as_widths(frames, "here")
