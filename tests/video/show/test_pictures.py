"""Curve and circumplex as pictures: what they must show, and that nothing odd breaks them."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from matplotlib import colormaps, image
from matplotlib.colors import to_rgb

from maven_jax.video.prediction import Word
from maven_jax.video.show import look
from maven_jax.video.show.circumplex_path import plot_path
from maven_jax.video.show.curve import plot_prediction
from tests.support.predictions import HOSTILE, prediction_of, stepped, without_frames

WRITERS = (plot_prediction, plot_path)


def share_of(path, colour) -> float:
    """How much of a picture has a colour."""
    pixels = image.imread(path)[..., :3]
    return float((np.abs(pixels - to_rgb(colour)) < 0.01).all(axis=-1).mean())


@pytest.mark.parametrize("write", WRITERS)
def test_a_label_is_a_banner(write, tmp_path):
    write(prediction_of(), tmp_path / "good.png")
    write(prediction_of(label="untrained weights"), tmp_path / "bad.png")
    assert share_of(tmp_path / "good.png", look.ALARM) == 0
    assert share_of(tmp_path / "bad.png", look.ALARM) > 0.01


def test_frames_without_a_face_are_shaded(tmp_path):
    some = prediction_of()
    every = dataclasses.replace(some, face_found=np.ones(len(some), bool))
    plot_prediction(some, tmp_path / "some.png")
    plot_prediction(every, tmp_path / "every.png")
    shaded = share_of(tmp_path / "some.png", look.SHADE)
    # An eighth of the frames, on most of the height.
    assert 0.04 < shaded < 0.125
    assert share_of(tmp_path / "every.png", look.SHADE) < 0.001


@pytest.mark.parametrize("write", WRITERS)
def test_odd_predictions_are_drawn(write, tmp_path):
    whole = prediction_of(hostile=True, label=HOSTILE)
    nothing = np.full_like(whole.va, np.nan)
    odd = {
        "hostile": whole,
        "empty": without_frames(whole, 0),
        "single": without_frames(whole, 1),
        "unknown": dataclasses.replace(whole, va=nothing, smoothed=nothing),
        "raw": dataclasses.replace(whole, smoothed=None, words=(), contributions=None),
        "letters": dataclasses.replace(whole, words=(Word(0, 1, "日本"), Word(1, 2, "שלום"))),
        "long": dataclasses.replace(whole, time_s=whole.time_s * 2000),
    }
    for name, prediction in odd.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write(prediction, tmp_path / "folder" / f"{name}.png")
        assert image.imread(tmp_path / "folder" / f"{name}.png").shape[1] > 500


def test_words_lie_in_rows_without_overlap():
    words = [Word(0.1 * i, 0.1 * i + 0.1, "word") for i in range(100)]
    rows, left_out = look.fitting_rows(words, 0.05, 99, 3)
    assert (len(rows), sum(map(len, rows)), left_out) == (3, 100, 0)
    for row in rows:
        assert (np.diff([w.start_s for w in row]) >= 5 * 0.05 - 1e-9).all()
    rows, left_out = look.fitting_rows(words, 0.2, 99, 3)
    assert left_out == 100 - sum(map(len, rows)) > 50
    # The last ones would stand out beyond the end.
    rows, left_out = look.fitting_rows(words, 0.05, 10, 3)
    assert (left_out, max(w.start_s for row in rows for w in row)) == (1, pytest.approx(9.8))


def test_spans_end_with_the_next_picture():
    time_s = np.array([0.0, 0.1, 0.2, 0.5, 0.6])
    mask = np.array([True, False, True, True, True])
    np.testing.assert_allclose(look.spans(mask, time_s), [(0, 0.1), (0.2, 0.7)])


def middles(path, colour: str, columns) -> list[float]:
    """In some columns of pixels: how far down those of a colour are on average, in inches."""
    pixels = image.imread(path)[..., :3]
    near = np.abs(pixels - to_rgb(colour)).max(axis=-1) < 0.15
    return [float(np.flatnonzero(near[:, round(x * 130)]).mean()) / 130 for x in columns]


@pytest.mark.parametrize("smoothed", [False, True])
def test_each_curve_has_its_axis_its_values_and_its_time(smoothed, tmp_path):
    prediction = stepped()
    if smoothed:
        # What is bold is the smoothed one; the raw one is elsewhere.
        prediction = dataclasses.replace(prediction, smoothed=prediction.va, va=0 * prediction.va)
    plot_prediction(prediction, tmp_path / "curve.png")
    left, right = 0.85, 9.75  # inches, where the axis begins and ends
    # Before and behind the steps of valence (at a quarter) and arousal (at three quarters).
    rows = np.array([57, 63, 177, 183])
    columns = left + (right - left) * (rows + 0.5) / len(prediction)
    for column, colour in enumerate(look.COLOURS):
        top = 0.56 + column * (1.75 + 0.12)
        wanted = top + 1.75 * (1.04 - look.shown_track(prediction)[rows, column]) / 2.08
        np.testing.assert_allclose(
            middles(tmp_path / "curve.png", colour, columns), wanted, atol=0.02
        )


def test_the_way_through_the_circle_goes_where_the_prediction_does(tmp_path):
    prediction = stepped()
    plot_path(prediction, tmp_path / "path.png")
    pixels = image.imread(tmp_path / "path.png")[..., :3]
    inches = pixels.shape[0] / 130

    def around(valence: float, arousal: float) -> np.ndarray:
        across, up = (np.array([valence, arousal]) / 1.14 + 1) / 2 * 0.82 + 0.03
        row, column = round((1 - up) * inches * 130), round(across * inches * 130)
        return pixels[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)

    # From (0.8, 0.3) over (-0.6, 0.3), a quarter of the time later, to (-0.6, -0.9) at the end.
    assert (np.abs(around(-0.6, -0.9) - to_rgb(look.INK)) < 0.02).all()
    for place, share in (((0.1, 0.3), 0.25), ((-0.6, -0.3), 0.75)):
        colour = colormaps["viridis"](share)[:3]
        assert np.abs(around(*place) - colour).max(axis=1).min() < 0.03
