"""From the store to batches: windows read at random, padded, batched, sharded per process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import grain
import numpy as np

from maven_jax.data.store import Frames, Store
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.types import Batch


class WindowSource:
    """Random access to windows as dicts of arrays of one shape (a grain data source).

    Args:
        store: the feature store.
        windows: which frames; see `make_windows`.
        modalities: which to read, in this order.
        single_vector: modalities that are given as one vector per window, the mean over its
            observed frames: modality -> only the first so many seconds of it count (None: all).
        padded_size: length to report; positions behind the last window are empty ones, so that
            the last batch of an evaluation is whole on every process.

    Raises:
        UserError: a mean vector is asked of a modality of whole numbers.
    """

    def __init__(
        self,
        store: Store,
        windows: Windows,
        modalities: tuple[str, ...],
        single_vector: Mapping[str, float | None],
        padded_size: int | None = None,
    ):
        self._store, self._windows = store, windows
        self._modalities, self._single = modalities, dict(single_vector)
        self._size = len(windows) if padded_size is None else padded_size
        for name in self._single:
            if name in modalities and store.modalities[name].dtype == "uint8":
                raise UserError(
                    f"config.data.single_vector.{name}: {store.path} holds raw uint8 values of "
                    f"{name}; their mean over a window means nothing to an encoder"
                )

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:  # grain compares it when a position is restored
        return f"WindowSource({self._size} windows of {self._windows.length} frames)"

    def __getitem__(self, index: Any) -> dict[str, Any]:
        index = int(index)
        windows = self._windows
        if index >= len(windows):
            return self._empty()
        entry = windows.entries[windows.video[index]]
        which = windows.frames(index)
        frames = self._store.read(entry, which.start, which.stop, self._modalities, which.step)
        return self._item(frames, index)

    def _item(self, frames: Frames, index: int) -> dict[str, Any]:
        length, n = self._windows.length, len(frames.time_s)
        features, masks = {}, {}
        for name in self._modalities:
            x, mask = frames.features[name], frames.masks[name]
            if name in self._single:
                x, mask = _mean_vector(x, mask, frames.time_s, self._single[name])
                features[name], masks[name] = x, mask
            else:
                features[name], masks[name] = _pad(x, length), _pad(mask, length)
        return {
            "features": features,
            "modality_masks": masks,
            "frame_mask": np.arange(length) < n,
            "targets": _pad(frames.targets.astype(np.float32), length),
            "target_mask": _pad(frames.target_mask, length),
            "window": np.int32(index),
        }

    def _empty(self) -> dict[str, Any]:
        item = self[0]
        for mask in (*item["modality_masks"].values(), item["frame_mask"], item["target_mask"]):
            mask[...] = False
        return item | {"window": np.int32(-1)}


def _pad(x: np.ndarray, length: int) -> np.ndarray:
    out = np.zeros((length, *x.shape[1:]), x.dtype)
    out[: len(x)] = x
    return out


def _mean_vector(
    x: np.ndarray, mask: np.ndarray, time_s: np.ndarray, first_s: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean (1, c) of the observed frames (of the first `first_s` seconds) and its mask (1,)."""
    if first_s is not None:
        mask = mask & (time_s < time_s[0] + first_s)
    if not mask.any():
        return np.zeros((1, x.shape[1]), x.dtype), np.zeros(1, bool)
    mean = x[mask].astype(np.float32).mean(0, keepdims=True)
    return mean.astype(x.dtype), np.ones(1, bool)


def to_batch(item: Mapping[str, Any]) -> Batch:
    """A stacked dict of arrays as a `Batch` of NumPy arrays."""
    return Batch(**item)


def train_iterator(
    source: WindowSource,
    *,
    batch_size: int,
    seed: int,
    num_threads: int,
    process_index: int,
    process_count: int,
) -> grain.DatasetIterator:
    """Endless shuffled batches; every epoch has its own order, which depends on the seed alone.

    Batch k of all processes together holds the same windows however many processes there are:
    the shuffled list is dealt out row by row.

    Args:
        source: the windows.
        batch_size: rows of this process.
        seed: of the order.
        num_threads: threads that read and decode; 0 reads in the calling thread.
        process_index: this process.
        process_count: all processes.

    Returns:
        An iterator with `get_state`/`set_state`, its position being part of a checkpoint.
    """
    data = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    data = data[process_index::process_count].batch(batch_size)
    return iter(data.to_iter_dataset(_read_options(num_threads)))


def ordered_batches(
    source: WindowSource,
    *,
    batch_size: int,
    num_threads: int,
    process_index: int,
    process_count: int,
) -> Iterator[Mapping[str, Any]]:
    """Every window once, in order: this process's rows of each batch, all batches whole."""
    data = grain.MapDataset.source(source)[process_index::process_count].batch(batch_size)
    return iter(data.to_iter_dataset(_read_options(num_threads)))


def _read_options(num_threads: int) -> grain.ReadOptions:
    # One item of these data sets is a whole batch: a few in flight keep the device busy, and
    # grain's default of 500 would hold gigabytes.
    return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4 if num_threads else 0)
