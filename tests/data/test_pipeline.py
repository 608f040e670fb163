"""Windows as padded, masked items: of consecutive frames, of frames apart, of pixels."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from maven_jax.data.pipeline import WindowSource, to_batch, train_iterator
from maven_jax.data.windows import make_windows
from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

LENGTHS = {"a": (130, 25.0), "b": (37, 12.5), "c": (3, 30.0)}


def write(path: Path) -> Store:
    """Every value says which frame it belongs to; some frames lack a modality or annotation."""
    writer = StoreWriter(
        path,
        videos=[PlannedVideo(v, "train", n, v) for v, (n, _) in LENGTHS.items()],
        modalities={
            "crops": ModalitySpec("crops", 4, {}, "uint8"),
            "sound": ModalitySpec("sound", 2, {}),
        },
        chunk_frames=8,
        provenance={},
    )
    for video, (n, fps) in LENGTHS.items():
        number = np.arange(n)
        with writer.video(video, fps, n / fps) as out:
            out.append(
                Frames(
                    time_s=number / fps,
                    targets=np.stack([number / 200, -number / 200], 1).astype(np.float32),
                    target_mask=number % 5 > 0,
                    segment_id=np.full(n, -1, np.int32),
                    features={
                        "crops": np.repeat(number[:, None], 4, 1).astype(np.uint8),
                        "sound": np.stack([number, number + 0.5], 1).astype(np.float32),
                    },
                    masks={"crops": number % 7 > 0, "sound": number % 3 > 0},
                )
            )
    return writer.finish()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write(tmp_path_factory.mktemp("pipeline") / "s")


def test_items_of_dense_windows_hold_their_frames_and_mask_the_rest(store):
    entries = store.videos("train")
    windows = make_windows(entries, kind="dense", length=6, hop=1, step_s=0.32)
    assert sorted(set(windows.step)) == [4, 8, 10]
    source = WindowSource(store, windows, ("sound", "crops"), {})
    short = 0
    for index in range(len(windows)):
        item = source[index]
        entry = entries[windows.video[index]]
        numbers = np.arange(entry.num_frames)[windows.frames(index)]
        n = len(numbers)
        short += n < 6
        assert item["window"] == index
        np.testing.assert_array_equal(item["frame_mask"], np.arange(6) < n)
        np.testing.assert_array_equal(item["target_mask"][:n], numbers % 5 > 0)
        np.testing.assert_array_equal(item["modality_masks"]["crops"][:n], numbers % 7 > 0)
        np.testing.assert_array_equal(item["modality_masks"]["sound"][:n], numbers % 3 > 0)
        crops, sound = item["features"]["crops"], item["features"]["sound"]
        assert (crops.dtype, crops.shape, sound.dtype) == (np.uint8, (6, 4), np.float16)
        np.testing.assert_array_equal(crops[:n, 0], np.where(numbers % 7 > 0, numbers, 0))
        np.testing.assert_array_equal(sound[:n, 0], np.where(numbers % 3 > 0, numbers, 0))
        expected = np.where(numbers % 5 > 0, numbers / 200, 0)
        np.testing.assert_allclose(item["targets"][:n, 0], expected, rtol=1e-6)
        masks = (*item["modality_masks"].values(), item["target_mask"])
        assert not any(mask[n:].any() for mask in masks)
    assert 0 < short < len(windows)
    empty = source[len(windows) + 2]
    assert empty["window"] == -1
    assert not empty["frame_mask"].any()
    assert jax.tree.map(np.shape, empty) == jax.tree.map(np.shape, source[0])


def test_batches_of_pixels_stay_uint8(store):
    windows = make_windows(store.videos("train"), kind="dense", length=6, hop=2, step_s=0.32)
    source = WindowSource(store, windows, ("crops", "sound"), {})
    data = train_iterator(source, batch_size=3, rows=np.arange(3), seed=0, num_threads=2)
    batch = to_batch(next(data))
    assert batch.features["crops"].dtype == np.uint8
    assert batch.features["crops"].shape == (3, 6, 4)


def test_a_mean_vector_of_pixels_is_refused(store):
    windows = make_windows(store.videos("train"), kind="sliding", length=6, hop=6, step_s=None)
    with pytest.raises(UserError, match=r"config\.data\.single_vector\.crops"):
        WindowSource(store, windows, ("crops", "sound"), {"crops": None})
    item = WindowSource(store, windows, ("crops", "sound"), {"sound": None})[1]
    # Of frames 6 to 11 sound was observed in 7, 8, 10 and 11.
    np.testing.assert_array_equal(item["features"]["sound"], [[9.0, 9.5]])
