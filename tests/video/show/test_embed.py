"""Which media a page carries whole, and which as thumbnails."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import soundfile

from maven_jax.errors import UserError
from maven_jax.video.show import embed
from maven_jax.video.show.embed import embeddable
from tests.support.clips import write_clip
from tests.support.predictions import prediction_of


def pictures_in(found: embed.Embedded) -> list[np.ndarray]:
    """The thumbnails, decoded."""
    return [cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1) for _, jpeg in found.thumbnails]


@pytest.mark.parametrize(
    ("name", "given", "mime"),
    [
        ("a.mp4", {}, "video/mp4"),
        ("b.mov", {"sound": "libmp3lame"}, "video/mp4"),
        ("c.webm", {"codec": "libvpx", "sound": "libopus"}, "video/webm"),
        ("d.mkv", {}, ""),
        ("e.avi", {"codec": "mpeg4", "sound": ""}, ""),
        ("f.mp4", {"codec": "mpeg4"}, ""),
        ("g.mp4", {"pixels": "yuv444p"}, ""),
    ],
)
def test_only_what_browsers_play_is_embedded(name, given, mime, tmp_path):
    clip = write_clip(tmp_path / name, np.arange(30) / 25, **given)
    found = embeddable(clip, prediction_of(30, 25))
    assert (found.mime, found.size) == (mime, (192, 144))
    if mime:
        assert (found.kind, found.content) == ("video", clip.read_bytes())
        assert found.thumbnails == ()
    else:
        assert (found.kind, found.content) == ("", b"")
        times_s = [t for t, _ in found.thumbnails]
        np.testing.assert_allclose(times_s, np.arange(30) / 25, atol=2e-3)
        # The square moves to the right.
        bright = [p[60:70].mean(axis=(0, 2)).argmax() for p in pictures_in(found)]
        assert bright[0] < bright[10] < bright[29]


def test_a_large_video_becomes_a_hundred_thumbnails(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", np.arange(150) / 25, size=(640, 480), sound="")
    monkeypatch.setattr(embed, "EMBEDDED_BYTES", clip.stat().st_size - 1)
    found = embeddable(clip, prediction_of(150, 25))
    assert (found.kind, found.content, len(found.thumbnails)) == ("video", b"", 100)
    assert found.thumbnails[-1][0] == pytest.approx(149 / 25, abs=1e-3)
    assert pictures_in(found)[0].shape == (240, 320, 3)
    assert found.size == (640, 480)


def test_sound_alone_is_embedded(tmp_path):
    soundfile.write(tmp_path / "tone.wav", np.zeros(800), 8_000)
    found = embeddable(tmp_path / "tone.wav", prediction_of(10))
    assert (found.kind, found.mime, found.thumbnails) == ("audio", "audio/wav", ())


def test_crops_become_thumbnails(tmp_path):
    for number in (1, 3):
        shade = np.full((112, 112, 3), 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number:05d}.jpg"), shade)
    found = embeddable(tmp_path, prediction_of(4, 10))
    assert [t for t, _ in found.thumbnails] == [0, 0.2]
    assert [round(p.mean()) for p in pictures_in(found)] == [40, 120]


def test_media_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.mp4: no such file"):
        embeddable(tmp_path / "gone.mp4", prediction_of(5))
