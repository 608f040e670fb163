"""Clips by time: which crops they hold, what is missing, and what a feature depends on."""

import functools

import numpy as np
import pytest

from maven_jax.features.clips import ClipEncoder, clips_of, nearest_frames
from maven_jax.features.device import Clock


class Pictures:
    """Crops in memory; counts how often each is decoded."""

    def __init__(self, pictures):
        self.pictures = dict(pictures)
        self.existing = sorted(self.pictures)
        self.loads = []

    def load(self, frame):
        self.loads.append(frame)
        return self.pictures[frame]


def numbered(frames):
    """Pictures of one pixel whose value is the number of the frame."""
    return [(f, np.full((1, 1, 3), f, np.uint8)) for f in frames]


def clips(frames, times_s, count=8, step_s=4 / 30):
    """Frame → numbers of the frames that its clip shows."""
    found = clips_of(numbered(frames), times_s, count, step_s)
    return {frame: clip[:, 0, 0, 0].tolist() for frame, clip in found}


def test_the_nearest_frame_in_time_counts_and_of_two_the_earlier():
    times = np.array([0.0, 0.25, 0.5, 2.0])
    at = np.array([-3.0, 0.125, 0.126, 0.5, 1.25, 1.26, 9.0])
    assert nearest_frames(times, at).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert nearest_frames(np.array([1.0]), np.array([0.0, 2.0])).tolist() == [0, 0]


def test_a_clip_is_every_fourth_frame_at_thirty_a_second_and_ends_at_its_own():
    found = clips(range(60), np.arange(60) / 30)
    assert found[40] == [12, 16, 20, 24, 28, 32, 36, 40]
    assert found[10] == [0, 0, 0, 0, 0, 2, 6, 10]


def test_at_other_rates_the_clip_covers_the_same_time():
    assert clips(range(60), np.arange(60) / 15)[40] == [26, 28, 30, 32, 34, 36, 38, 40]
    assert clips(range(60), np.arange(60) / 7.5)[40] == [33, 34, 35, 36, 37, 38, 39, 40]
    # A pause of the camera: a moment in it takes the frame nearest to it.
    times = np.concatenate([np.arange(10) / 30, 2 + np.arange(10) / 30])
    assert clips(range(20), times, count=3, step_s=0.8)[12] == [9, 10, 12]
    assert clips(range(20), times, count=3, step_s=0.6)[12] == [9, 10, 12]
    assert clips(range(20), times, count=3, step_s=1.5)[12] == [0, 9, 12]


def test_a_missing_crop_inside_takes_the_nearest_earlier_else_a_later_one():
    times = np.arange(60) / 30
    there = [f for f in range(60) if f not in (12, 28, 27, 41) and f > 3]
    found = clips(there, times)
    assert set(found) == set(there)
    assert found[40] == [11, 16, 20, 24, 26, 32, 36, 40]
    # Nothing before frame 4: the first later crop stands in.
    assert found[16] == [4, 4, 4, 4, 4, 8, 11, 16]
    assert found[4] == [4] * 8


def test_few_crops_are_held_however_long_the_video():
    times = np.arange(3000) / 30
    generator = clips_of(((f, np.zeros((1, 1, 3), "u1")) for f in range(3000)), times, 8, 4 / 30)
    for frame, _ in generator:
        assert len(generator.gi_frame.f_locals["crops"]) <= 30, frame


MODEL = {
    "image_size": 16,
    "stem_dims": (4, 4),
    "widths": (4, 8),
    "depths": (1, 1),
    "strides": (2, 2),
}


@functools.cache
def encoder(batch_size, **model):
    return ClipEncoder(
        source="random",
        dtype="float32",
        batch_size=batch_size,
        batch_buckets=1,
        workers=2,
        step_s=4 / 30,
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        seed=0,
        model=MODEL | model,
    )


def pictures(frames, seed=0):
    rng = np.random.default_rng(seed)
    return {f: rng.integers(0, 256, (112, 112, 3), np.uint8) for f in frames}


def run(visual, crops, times, max_block=512):
    blocks = list(visual.blocks(crops, times, Clock(), max_block))
    assert all(len(mask) <= max_block for _, mask in blocks)
    return np.concatenate([f for f, _ in blocks]), np.concatenate([m for _, m in blocks])


def test_features_stand_at_their_frames_and_each_crop_is_decoded_once():
    there = [f for f in range(45) if f not in (0, 7, 8, 20, 44)]
    crops = Pictures(pictures(there))
    times = np.arange(45) / 30
    features, mask = run(encoder(8), crops, times, max_block=6)
    assert features.shape == (45, 4 * 8)
    assert np.flatnonzero(mask).tolist() == there
    assert (features[~mask] == 0).all()
    assert sorted(crops.loads) == there
    other, _ = run(encoder(5), Pictures(pictures(there)), times)
    np.testing.assert_allclose(other, features, atol=1e-5)


def test_a_crop_changes_only_the_frames_whose_clips_show_it():
    times = np.arange(70) / 30
    shown = pictures(range(70))
    before, _ = run(encoder(8), Pictures(shown), times)
    after, _ = run(encoder(8), Pictures(shown | pictures([33], seed=1)), times)
    changed = np.flatnonzero(np.abs(before - after).max(1) > 1e-6)
    assert changed.tolist() == [33, 37, 41, 45, 49, 53, 57, 61]


def test_a_fourth_channel_is_shown_nothing():
    """As if its weights were not there: RJCA takes those of TSAV's mask channel away."""
    wide, narrow = encoder(4, num_channels=4), encoder(4)
    kernel = wide._run._params["params"]["stem"]["space"]["kernel"]
    rest = narrow._run._params["params"]["stem"]["space"]["kernel"]
    assert kernel.shape[:2] == rest.shape[:2]
    assert kernel.shape[2] == 4
    crops, times = pictures(range(6)), np.arange(6) / 30
    found, _ = run(wide, Pictures(crops), times)
    changed = kernel.at[:, :, 3].set(1e3)
    wide._run._params["params"]["stem"]["space"]["kernel"] = changed
    again, _ = run(wide, Pictures(crops), times)
    wide._run._params["params"]["stem"]["space"]["kernel"] = kernel
    np.testing.assert_array_equal(found, again)
    wide._run._params["params"]["stem"]["space"]["kernel"] = kernel * 2
    assert np.abs(run(wide, Pictures(crops), times)[0] - found).max() > 1e-3


@pytest.mark.parametrize("frames", [[], [2]])
def test_videos_of_few_crops(frames):
    features, mask = run(encoder(8), Pictures(pictures(frames)), np.arange(5) / 30)
    assert features.shape == (5, 32)
    assert np.flatnonzero(mask).tolist() == frames
