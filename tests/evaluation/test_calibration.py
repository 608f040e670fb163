"""What is done to tracks at the end of prediction."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import (
    Adjustment,
    Calibration,
    adjusted,
    as_widths,
    box_filter,
    fill_gaps,
    filters,
    in_words,
    read_calibration,
)
from maven_jax.files import write_json

HOW = Adjustment(0.2, 3, 1.5, -0.1), Adjustment(0.0, 0, 1.0, 0.0)


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


def test_one_width_is_that_of_both():
    track = np.random.default_rng(0).uniform(-1, 1, (30, 2)).astype(np.float32)
    np.testing.assert_array_equal(box_filter(track, 5), box_filter(track, (5, 5)))
    with pytest.raises(UserError, match=r"^frames=\[-5, -5\]: expected two numbers of frames"):
        box_filter(track, -5)


@pytest.mark.parametrize("frames", [(-1, 0), (0, True)])
def test_impossible_widths_are_refused(frames):
    with pytest.raises(UserError, match=r"^here=\(.*expected two numbers of frames"):
        as_widths(frames, "here")


def test_an_adjustment_is_its_formula():
    track = np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32)
    out = adjusted(track, 10.0, HOW)
    assert out.dtype == np.float32
    late = np.concatenate([[track[0, 0]] * 2, track[:-2, 0]])
    expected = np.clip(1.5 * naive(late, 3) - 0.1, -1, 1)
    np.testing.assert_allclose(out[:, 0], expected, atol=1e-6)
    assert expected.max() == 1 or expected.min() == -1
    np.testing.assert_array_equal(out[:, 1], track[:, 1])
    assert in_words(HOW) == "valence 0.2 s later, 3 frames, x 1.500 - 0.100; arousal as it is"


def test_gaps_are_bridged_before_and_are_gaps_again():
    track = np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype(np.float32)
    track[10:15] = np.nan
    out = adjusted(track, 10.0, HOW)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(track))
    known = ~np.isnan(track[:, 0])
    bridged = np.stack([fill_gaps(x, known) for x in track.T], 1)
    np.testing.assert_array_equal(out[known], adjusted(bridged, 10.0, HOW)[known])
    nothing = np.full((3, 2), np.nan, np.float32)
    assert np.isnan(adjusted(nothing, 10.0, HOW)).all()


def test_calibrations_of_a_workdir_say_what_they_were_chosen_by(tmp_path):
    assert read_calibration(tmp_path) is None
    whole = Calibration(HOW, 12, "validation", "abc")
    one = whole.to_json()
    for content, reason in (
        ([], "holds no JSON object"),
        ({"valence": 3}, "expected two numbers of frames"),
        ({"valence": 3, "arousal": 0, "step": 1}, "by which step, split and store"),
        (one | {"arousal": None}, "arousal: it is 'None'; expected delay_s"),
        (one | {"arousal": one["arousal"] | {"scale": 0}}, "arousal: delay 0.0 s, 0 frames"),
        (one | {"arousal": one["arousal"] | {"delay_s": 1e9}}, "expected delay_s from 0 to 60"),
        (one | {"step": "12"}, "by which step, split and store"),
    ):
        write_json(tmp_path / "calibration.json", content)
        with pytest.raises(UserError, match=reason):
            read_calibration(tmp_path)
    write_json(tmp_path / "calibration.json", one | {"scores": {}})
    assert read_calibration(tmp_path) == whole


def test_widths_that_an_earlier_version_tuned_are_read(tmp_path):
    origin = {"step": 12, "split": "validation", "store_fingerprint": "abc"}
    old = {"valence": 30, "arousal": 15, "scores": {}, **origin}
    write_json(tmp_path / "smoothing.json", old)
    widths = Calibration(filters((30, 15)), 12, "validation", "abc")
    assert read_calibration(tmp_path) == widths
    track = np.random.default_rng(0).uniform(-1, 1, (90, 2)).astype(np.float32)
    np.testing.assert_allclose(widths(track, 25.0), box_filter(track, (30, 15)), atol=1e-7)
