"""The overlay as a file: times, sound, size, and what is drawn where."""

from __future__ import annotations

import dataclasses

import av
import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.media.frame_times import probe
from maven_jax.media.sound import open_audio
from maven_jax.video.show.overlay import write_overlay
from maven_jax.video.show.panel import Panel
from tests.support.clips import TAIL_S, write_clip
from tests.support.predictions import prediction_of, stepped

# Unevenly spaced, and the first not at once.
_TIMES_S = np.cumsum([0.2, *([0.04] * 20), *([0.1, 0.021] * 10), *([0.05] * 8)]).round(3)


def images_of(path) -> list[np.ndarray]:
    """The pictures of a video in RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A prediction for a clip with uneven times, and its overlay."""
    folder = tmp_path_factory.mktemp("overlay")
    clip = write_clip(folder / "clip.mp4", _TIMES_S, size=(640, 360))
    whole = prediction_of(len(_TIMES_S), 24, source=clip)
    prediction = dataclasses.replace(whole, time_s=probe(clip).times_s)
    write_overlay(prediction, clip, folder / "made" / "overlay.mp4")
    return prediction, clip, folder / "made" / "overlay.mp4"


def test_pictures_keep_their_times_and_sound_its_samples(drawn):
    prediction, clip, overlay = drawn
    made, given = probe(overlay), probe(clip)
    np.testing.assert_allclose(made.times_s, given.times_s, atol=1e-3, rtol=0)
    assert len(made.times_s) == len(prediction)
    assert made.audio_start_s == pytest.approx(given.audio_start_s, abs=1e-3)
    tones = [np.concatenate(list(open_audio(p).blocks(16_000))) for p in (overlay, clip)]
    np.testing.assert_array_equal(*tones)


def test_the_overlay_of_a_part_is_that_part(drawn, tmp_path):
    whole, clip, overlay = drawn
    rows = slice(12, 31)
    cut = {
        field: getattr(whole, field)[rows]
        for field in ("frame", "time_s", "va", "smoothed", "face_found", "face_confidence", "boxes")
    }
    observed = {m: mask[rows] for m, mask in whole.observed.items()}
    part = dataclasses.replace(whole, **cut, observed=observed, contributions=None)
    write_overlay(part, clip, tmp_path / "part.mp4")
    made, begin_s = probe(tmp_path / "part.mp4"), whole.time_s[12]
    np.testing.assert_allclose(made.times_s, whole.time_s[rows] - begin_s, atol=1e-3, rtol=0)
    assert made.audio_start_s == pytest.approx(0, abs=0.07)  # one packet of AAC
    assert made.audio_end_s == pytest.approx(whole.time_s[31] - begin_s, abs=0.07)
    picture, same = images_of(tmp_path / "part.mp4")[7], images_of(overlay)[19]
    picture_rows = slice(0, 360)
    assert np.abs(picture[picture_rows].astype(int) - same[picture_rows]).mean() < 4


def test_the_box_follows_the_face(drawn):
    prediction, _, overlay = drawn
    images = images_of(overlay)
    for row in (0, 15, int(np.flatnonzero(~prediction.face_found)[0]), len(prediction) - 1):
        x, y, w, h = np.nan_to_num(prediction.boxes[row], nan=70).round().astype(int)
        corners = [images[row][y + h // 2, x], images[row][y, x + w // 2]]
        white = min(int(corner.min()) for corner in corners) > 200
        assert white == prediction.face_found[row]


def test_the_strip_below_moves_with_the_values(drawn):
    prediction, _, overlay = drawn
    images = images_of(overlay)
    assert images[0].shape == (470, 640, 3)
    red = [(image[360:] - np.array([255, 123, 107.0])) for image in (images[5], images[30])]
    heads = [(np.abs(r).max(axis=-1) < 40) for r in red]
    # The playhead: the column with most of its colour, right of the values.
    columns = [230 + int(h[:, 230:].sum(axis=0).argmax()) for h in heads]
    wanted = prediction.time_s[[5, 30]] / prediction.time_s[-1]
    left, right = 235, 633
    np.testing.assert_allclose((np.array(columns) - left) / (right - left), wanted, atol=0.03)


def test_each_curve_value_and_dot_is_of_its_dimension():
    def strip(row: int, **changed) -> np.ndarray:
        panel = Panel(dataclasses.replace(prediction, **changed), 640, 360)
        image = np.zeros((360, 640, 3), np.uint8)
        return panel.drawn(image, row, prediction.time_s[row])[360:].astype(int)

    prediction = stepped()
    high, lanes, unit = 110, ((6, 42), (52, 42)), 1.1
    # The whole of it is seen, since it is shorter than 20 s; the steps are at 2.5 s and at 7.5 s.
    drawn = strip(120)
    assert drawn.shape[0] == high
    left, right = 235, 633
    for row in (57, 63, 177, 183):
        column = left + round((right - left) * prediction.time_s[row] / 10)
        for dimension, colour in enumerate(((92, 193, 226), (240, 166, 72))):
            near = np.abs(drawn[:, column] - colour).max(axis=-1) < 40
            top, tall = lanes[dimension]
            wanted = unit * (top + tall * (1 - prediction.va[row, dimension]) / 2)
            assert np.flatnonzero(near).mean() == pytest.approx(wanted, abs=2)
    # The dot: valence to the right, arousal upwards, of the picture's row.
    for row in (0, 150):
        red = np.abs(strip(row)[:, :110] - (255, 123, 107)).max(axis=-1) < 40
        middle = np.argwhere(red).mean(axis=0)
        np.testing.assert_allclose(middle, 55 + 41.8 * prediction.va[row, ::-1] * (-1, 1), atol=1.5)
    # The numbers: valence above arousal.
    for dimension, rows in enumerate((slice(0, 54), slice(54, 110))):
        other = prediction.va.copy()
        other[120, dimension] = 0.11
        changed = (strip(120, va=other) != drawn)[:, 112:200].any(axis=(1, 2))
        assert changed[rows].any()
        assert changed.sum() == changed[rows].sum()


@pytest.mark.parametrize(
    ("suffix", "codec", "sound", "size", "made"),
    [
        (".mkv", "libx264", "pcm_s16le", (640, 360), (640, 470)),
        (".avi", "mpeg4", "", (192, 144), (480, 452)),
        (".mp4", "libx264", "aac", (501, 401), (502, 496)),
    ],
)
def test_other_files_become_mp4(suffix, codec, sound, size, made, tmp_path):
    times_s = np.arange(12) / 25
    pixels = "yuv444p" if size[0] % 2 else "yuv420p"
    clip = tmp_path / f"clip{suffix}"
    write_clip(clip, times_s, codec=codec, sound=sound, size=size, pixels=pixels)
    write_overlay(prediction_of(12, 25), clip, tmp_path / "out.mp4")
    np.testing.assert_allclose(probe(tmp_path / "out.mp4").times_s, times_s, atol=1e-3)
    assert images_of(tmp_path / "out.mp4")[0].shape[1::-1] == made
    if sound:
        tone = np.concatenate(list(open_audio(tmp_path / "out.mp4").blocks(16_000)))
        assert len(tone) / 16_000 == pytest.approx(times_s[-1] + TAIL_S, abs=0.1)
        assert np.abs(tone).max() > 0.1
    else:
        assert probe(tmp_path / "out.mp4").audio_start_s is None


def test_a_label_is_a_banner_on_every_picture(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", np.arange(5) / 25, sound="")
    for label in ("", "untrained weights"):
        write_overlay(prediction_of(5, 25, label=label), clip, tmp_path / "out.mp4")
        for image in images_of(tmp_path / "out.mp4"):
            red = np.abs(image[:20].astype(int) - (179, 38, 30)).max(axis=-1) < 30
            assert (red.mean() > 0.3) == bool(label)


def test_what_has_no_pictures_is_refused_and_leaves_nothing(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "tone.wav", np.zeros(800), 8_000)
    (tmp_path / "crops").mkdir()
    for media, why in (("tone.wav", "no video stream"), ("crops", "folder of crops")):
        with pytest.raises(UserError, match=why):
            write_overlay(prediction_of(5), tmp_path / media, tmp_path / "out" / "o.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 5000)
    with pytest.raises(UserError, match=r"broken\.mp4"):
        write_overlay(prediction_of(5), broken, tmp_path / "out" / "o.mp4")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_failure_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", np.arange(5) / 25, sound="")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maven_jax.video.show.panel.Panel.drawn", full)
    with pytest.raises(OSError, match="No space"):
        write_overlay(prediction_of(5, 25), clip, tmp_path / "out" / "o.mp4")
    assert list((tmp_path / "out").iterdir()) == []
