"""Curve and circumplex as pictures: what they must show, and that nothing odd breaks them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb
from predictions import HOSTILE, prediction_of

from maven_jax.prediction import Word
from maven_jax.show import look
from maven_jax.show.circumplex_path import plot_path
from maven_jax.show.curve import plot_prediction

WRITERS = (plot_prediction, plot_path)


def share_of(path, colour) -> float:
    """How much of a picture has a colour."""
    pixels = image.imread(path)[..., :3]
    return float((np.abs(pixels - to_rgb(colour)) < 0.01).all(axis=-1).mean())


def without_frames(prediction, n: int):
    """The first n frames of a prediction."""
    first = {
        f.name: value[:n]
        for f in dataclasses.fields(prediction)
        if isinstance(value := getattr(prediction, f.name), np.ndarray)
    }
    by_name = {
        key: {m: values[:n] for m, values in getattr(prediction, key).items()}
        for key in ("observed", "contributions")
    }
    return dataclasses.replace(prediction, **first, **by_name)


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
    }
    for name, prediction in odd.items():
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
