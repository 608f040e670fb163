"""A part of a recording: the frames, pictures, crops and samples of the whole, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.media.crops import Crops
from maven_jax.media.frame_times import probe
from maven_jax.media.pictures import pictures
from maven_jax.media.recording import open_recording, part_of
from maven_jax.media.sound import open_audio
from tests.support.corpora import write_crops, write_video


@pytest.mark.parametrize("name", ["a.mp4", "a.ts", "a.avi"])  # the last has no timestamps
def test_pictures_of_a_part_are_those_of_the_whole(name, tmp_path):
    path = tmp_path / name
    write_video(path, frames=120, fps=25, sound_s=4.8, options={"g": "12"})
    whole = open_recording(path, crops=None, fps=None)
    part = part_of(whole, 2.99, 3.5)
    np.testing.assert_array_equal(
        part.times_s, whole.times_s[part.first_frame :][: len(part.times_s)]
    )
    assert 2.99 <= part.times_s[0] < 3.03 < 3.45 < part.times_s[-1] < 3.5
    assert part.duration_s == pytest.approx(len(part.times_s) / 25, abs=0.01)
    expected = dict(pictures(path, probe(path)))
    found = list(pictures(path, part.info))
    assert [i for i, _ in found] == list(range(len(part.times_s)))
    for i, image in found:
        np.testing.assert_array_equal(image, expected[part.first_frame + i])


def test_sound_of_a_part_is_that_of_the_whole(tmp_path):
    write_video(tmp_path / "a.mp4", frames=75, fps=25, sound_s=2.5, sound_at_s=0.5)
    path = tmp_path / "a.mp4"
    whole, part = open_audio(path), open_audio(path, (1.0, 2.0))
    assert (part.start_s, part.duration_s) == (pytest.approx(1.0, abs=1e-4), pytest.approx(1.0))
    (samples,), (all_samples,) = part.blocks(16000), whole.blocks(16000)
    first = round((part.start_s - whole.start_s) * 16000)
    np.testing.assert_array_equal(samples, all_samples[first : first + 16000])
    # Where nothing is heard there is no sound.
    recording = open_recording(path, crops=None, fps=None)
    assert part_of(recording, None, 0.4).audio is None
    assert part_of(recording, 1, 2).audio == path


def test_crops_of_a_part_keep_their_names(tmp_path):
    write_crops(tmp_path / "crops", [0, 10, 11, 40])
    whole = open_recording(tmp_path / "crops", crops=None, fps=10)
    part = part_of(whole, 1.0, 2.0)
    crops = Crops(tmp_path / "crops", first=part.first_crop)
    assert crops.existing.tolist() == [0, 1, 30]
    assert crops.path_of(0).name == "00011.jpg"
    image = crops.load(1)
    assert image is not None
    assert image.mean() == pytest.approx(22, abs=2)
    assert part_of(whole, None, None) is whole
    with pytest.raises(UserError, match=r"no frame from 7 s up to inf s; its frames are at 0\.00"):
        part_of(whole, 7, None)
