"""Crops to features: pre-processing as published, order, masks, batches, devices."""

import functools
import json
import os
import subprocess
import sys
import threading
import time

import cv2
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from transformers import ViTImageProcessorPil

from maven_jax.convert.huggingface import random_encoder
from maven_jax.errors import UserError
from maven_jax.features.device import Clock, DeviceFunction, DeviceTime, bucket_of, buckets
from maven_jax.features.image_preprocessor import ImagePreprocessor
from maven_jax.features.visual import FaceEncoder, RawCrops, VisualEncoder
from maven_jax.media.crops import Crops
from tests.support.processes import xla_flags


def picture(seed):
    """A crop with structure at all scales."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (7, 7, 3), np.uint8), (112, 112))
    return (coarse // 2 + rng.integers(0, 128, (112, 112, 3), np.uint8)).astype(np.uint8)


@pytest.mark.parametrize("resample", [2, 3])
@pytest.mark.parametrize("size", [224, 56])
def test_preprocessing_equals_the_hugging_face_processor_bit_for_bit(resample, size):
    settings = {
        "do_resize": True,
        "size": size,
        "resample": resample,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "ViTImageProcessor",
    }
    image = picture(resample)
    ours = ImagePreprocessor(settings)
    theirs = ViTImageProcessorPil(**{k: v for k, v in settings.items() if "_type" not in k})
    expected = theirs(images=[image], return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    found = np.asarray(ours.normalise(ours.resize(image)))
    np.testing.assert_array_equal(found, expected)
    assert (ours.height, ours.width) == (size, size)


def test_preprocessing_that_is_not_understood_is_refused():
    with pytest.raises(UserError, match="crop"):
        ImagePreprocessor({"size": 48, "do_center_crop": True, "crop_size": 56})
    with pytest.raises(UserError, match="expected height and width"):
        ImagePreprocessor({"size": {"shortest_edge": 56}})


# A compilation costs more than what is tested with it: small, and one encoder shared.
SMALL = {
    "source": "random",
    "dtype": "float32",
    "batch_buckets": 1,
    "workers": 2,
    "seed": 0,
    "model": {
        "image_size": 32,
        "patch_size": 8,
        "embed_dim": 16,
        "depths": (1, 1),
        "num_heads": (2, 2),
        "window_size": 2,
    },
    "preprocessor": {"size": 32, "resample": 2},
}


@functools.cache
def encoder(batch_size):
    return VisualEncoder(**SMALL, batch_size=batch_size)


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """40 frames; 0, 7-11 and 33-39 have no crop, that of 20 does not decode."""
    folder = tmp_path_factory.mktemp("crops")
    for frame in range(40):
        if frame not in (0, 7, 8, 9, 10, 11) and frame < 33:
            cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), picture(frame))
    (folder / "00021.jpg").write_bytes((folder / "00021.jpg").read_bytes()[:700])
    return folder


def test_features_stand_at_their_own_frames(crops):
    visual = encoder(8)
    blocks = list(visual.encode(Crops(crops), 40, Clock(), max_block=6))
    assert max(len(mask) for _, mask in blocks) <= 6
    features = np.concatenate([f for f, _ in blocks])
    mask = np.concatenate([m for _, m in blocks])
    missing = [0, 7, 8, 9, 10, 11, 20, *range(33, 40)]
    assert np.flatnonzero(~mask).tolist() == missing
    assert (features[missing] == 0).all()
    # Every frame alone, in a folder of its own batch, gives the same vector.
    for frame in (1, 6, 12, 19, 21, 32):
        alone = visual._prep.resize(Crops(crops).load(frame))
        single = visual._run(np.stack([alone, *[np.zeros_like(alone)] * 7]))
        np.testing.assert_allclose(features[frame], np.asarray(single)[0], atol=2e-5)


def test_batch_size_does_not_matter_and_frames_beyond_the_end_are_unused(crops):
    def run(batch_size, frames):
        blocks = list(encoder(batch_size).encode(Crops(crops), frames, Clock()))
        return np.concatenate([f for f, _ in blocks]), np.concatenate([m for _, m in blocks])

    small, small_mask = run(8, 30)
    large, large_mask = run(32, 40)
    assert small.shape == (30, 32)
    np.testing.assert_array_equal(small_mask, large_mask[:30])
    np.testing.assert_allclose(small, large[:30], atol=2e-5)


def test_a_folder_without_crops_is_masked(tmp_path):
    ((features, mask),) = encoder(8).encode(Crops(tmp_path), 9, Clock())
    assert features.shape == (9, 32)
    assert not mask.any()


FACES = {
    "source": "random",
    "dtype": "float32",
    "batch_buckets": 1,
    "workers": 1,
    "resize": 48,
    "crop": 40,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "seed": 0,
    "model": {"stem_dim": 4, "widths": (4,), "depths": (1,), "strides": (4,), "embed_dim": 16},
}


class Pictures:
    """Crops in memory."""

    def __init__(self, pictures):
        self.pictures = dict(pictures)
        self.existing = sorted(self.pictures)

    def load(self, frame):
        return self.pictures[frame]


def test_faces_are_resized_cropped_and_normalised_as_released():
    """PIL's own resizing of the 48 x 48 face, its middle 40 x 40, (x - .5) / .5."""
    faces = FaceEncoder(**FACES, batch_size=4)
    crop = picture(3)
    small = np.asarray(PIL.Image.fromarray(crop).resize((48, 48)), np.float32)
    expected = (small[4:44, 4:44] / 255 - 0.5) / 0.5
    loaded = random_encoder("iresnet50", FACES["model"], 0)
    reference = loaded.module.apply(loaded.variables, jnp.asarray(expected)[None])
    blocks = list(faces.blocks(Pictures({2: crop}), np.arange(5) / 30, Clock(), 512))
    features = np.concatenate([f for f, _ in blocks])
    mask = np.concatenate([m for _, m in blocks])
    assert mask.tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(features[2], np.asarray(reference)[0], atol=1e-5)
    assert (features[~mask] == 0).all()


def test_a_crop_changes_its_own_frame_only():
    faces, times = FaceEncoder(**FACES, batch_size=4), np.arange(10) / 30
    shown = {f: picture(f) for f in range(10)}
    before = np.concatenate([f for f, _ in faces.blocks(Pictures(shown), times, Clock(), 4)])
    other = Pictures(shown | {6: picture(60)})
    after = np.concatenate([f for f, _ in faces.blocks(other, times, Clock(), 4)])
    assert np.flatnonzero((before != after).any(1)).tolist() == [6]


def test_raw_crops_are_the_pixels():
    raw = RawCrops(resize=56, workers=1)
    shown = {f: picture(f) for f in (0, 1, 4)}
    blocks = list(raw.blocks(Pictures(shown), np.arange(6) / 30, Clock(), 2))
    assert [len(mask) for _, mask in blocks] == [2, 2, 1, 1]
    pixels = np.concatenate([f for f, _ in blocks])
    mask = np.concatenate([m for _, m in blocks])
    assert pixels.dtype == np.uint8
    assert pixels.shape == (6, raw.dim) == (6, 56 * 56 * 3)
    assert mask.tolist() == [True, True, False, False, True, False]
    expected = np.asarray(PIL.Image.fromarray(shown[4]).resize((56, 56)))
    np.testing.assert_array_equal(pixels[4].reshape(56, 56, 3), expected)
    assert not pixels[~mask].any()


def test_buckets_are_few_and_hold_everything():
    assert buckets(64, 3) == (16, 32, 64)
    assert buckets(64, 3, multiple=24) == (24, 48, 72)
    assert buckets(1, 3) == (1,)
    assert [bucket_of(n, (16, 32, 64)) for n in (1, 16, 17, 64)] == [16, 16, 32, 64]


def test_a_shape_is_compiled_once_and_said(capsys):
    run = DeviceFunction("test", lambda scale, x: x * scale, jnp.float32(2))
    for n in (2, 2, 4, 2):
        np.testing.assert_array_equal(np.asarray(run(np.ones((n, 3), np.float32))), 2)
    said = [line for line in capsys.readouterr().out.splitlines() if "compiled" in line]
    assert len(said) == 2
    assert "2×3" in said[0]


def test_clock_counts_nested_stages_once():
    clock = Clock()
    with clock("outer"):
        before = clock.seconds["outer"]
        with clock("inner"):
            sum(range(100_000))
        assert clock.seconds["outer"] >= before
    assert clock.seconds["inner"] > 0


def test_threads_count_for_themselves():
    clock = Clock()
    inside = threading.Barrier(2)

    def work():
        with clock("work"):
            inside.wait()
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(2)]
    with clock("main"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert clock.seconds["work"] >= 2 * 0.05
    assert clock.seconds["main"] >= 0.05


class Result:
    """Is computed by a device when it is `ready`."""

    def __init__(self):
        self.ready = threading.Event()

    def block_until_ready(self):
        self.ready.wait()


def test_a_device_is_busy_from_a_computations_beginning_to_its_end_whoever_reads_it():
    device = DeviceTime()
    first, second = Result(), Result()
    began = time.monotonic()
    device.count("a", began - 2, first)
    device.count("b", began - 1, second)  # begun while the first is computed: waits for it
    second.ready.set()
    first.ready.set()
    seconds = device.seconds()
    took = time.monotonic() - began
    assert 2 <= seconds["a"] <= 2 + took
    assert 0 <= seconds["b"] <= took
    time.sleep(0.1)  # idle
    third = Result()
    third.ready.set()
    device.count("a", time.monotonic(), third)
    assert sum(device.seconds().values()) < 2 + 0.1 + took


DEVICES = """
import json, sys, numpy as np, jax
from pathlib import Path
from maven_jax.features.device import Clock
from maven_jax.features.image_preprocessor import ImagePreprocessor
from maven_jax.features.visual import VisualEncoder
from maven_jax.media.crops import Crops
assert len(jax.local_devices()) == 4
visual = VisualEncoder(**json.loads(sys.argv[3]), batch_size=6)
blocks = list(visual.encode(Crops(Path(sys.argv[1])), 40, Clock()))
np.save(sys.argv[2], np.concatenate([f for f, _ in blocks]))
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_four_devices_give_what_one_gives(crops, tmp_path):
    env = os.environ | {
        "XLA_FLAGS": xla_flags(4),
        "JAX_PLATFORMS": "cpu",
    }
    out = tmp_path / "features.npy"
    subprocess.run(
        [sys.executable, "-c", DEVICES, crops, out, json.dumps(SMALL)], check=True, env=env
    )
    one = np.concatenate([f for f, _ in encoder(8).encode(Crops(crops), 40, Clock())])
    np.testing.assert_allclose(np.load(out), one, atol=2e-5)


def test_crops_of_another_side_than_the_networks_are_refused_before_the_first():
    with pytest.raises(UserError, match="crop is 32, but the faces of random are 40 x 40"):
        FaceEncoder(**FACES | {"crop": 32}, batch_size=4)
