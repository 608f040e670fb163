"""From the store to batches: the order of the windows, and this process's rows of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import grain
import jax
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

    Raises:
        UserError: a mean vector is asked of a modality of whole numbers.
    """

    def __init__(
        self,
        store: Store,
        windows: Windows,
        modalities: tuple[str, ...],
        single_vector: Mapping[str, float | None],
    ):
        self._store, self._windows = store, windows
        self._modalities, self._single = modalities, dict(single_vector)
        for name in self._single:
            if name in modalities and store.modalities[name].dtype == "uint8":
                raise UserError(
                    f"config.data.single_vector.{name}: {store.path} holds raw uint8 values of "
                    f"{name}; their mean over a window means nothing to an encoder"
                )

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        return jax.tree.map(lambda x: x[0], self.read([int(index)]))

    @property
    def epoch_windows(self) -> int:
        """Windows of training after which each has been seen once."""
        return len(self)

    def order(self, seed: int) -> grain.MapDataset:
        """Window numbers without end; every epoch has its own order."""
        return grain.MapDataset.range(len(self)).seed(seed).shuffle().repeat()

    def read(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Windows by their numbers, stacked: arrays (b, …) with the fields of a `Batch`.

        All are fetched from the store at once. A number behind the last window gives an empty one.
        """
        windows, count = self._windows, len(self)
        numbers = [int(i) for i in indices]
        spans = [
            (windows.entries[windows.video[i]], windows.frames(i)) for i in numbers if i < count
        ]
        frames = iter(self._store.read_many(spans, self._modalities))
        items = [self._item(next(frames), i) if i < count else self._empty() for i in numbers]
        return jax.tree.map(lambda *rows: np.stack(rows), *items)

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
        length = self._windows.length
        features, masks = {}, {}
        for name in self._modalities:
            spec, n = self._store.modalities[name], 1 if name in self._single else length
            features[name] = np.zeros((n, spec.dim), spec.dtype)
            masks[name] = np.zeros(n, bool)
        return {
            "features": features,
            "modality_masks": masks,
            "frame_mask": np.zeros(length, bool),
            "targets": np.zeros((length, 2), np.float32),
            "target_mask": np.zeros(length, bool),
            "window": np.int32(-1),
        }


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


@runtime_checkable
class Source(Protocol):
    """What `train_iterator` takes: `WindowSource`, or a `Mixture` of them."""

    def order(self, seed: int) -> grain.MapDataset: ...

    def read(self, indices: np.ndarray) -> dict[str, Any]: ...


def train_iterator(
    source: Source,
    *,
    batch_size: int,
    rows: np.ndarray,
    seed: int,
    num_threads: int,
) -> grain.DatasetIterator:
    """Endless shuffled batches; every epoch has its own order, which depends on the seed alone.

    A global batch is the same rows in the same order however many processes there are: each
    process reads those that its devices take.

    Args:
        source: the windows.
        batch_size: rows of the global batch.
        rows: which of them this process reads, see `sharding.process_rows`.
        seed: of the order.
        num_threads: threads that read and decode batches; 0 reads in the calling thread.

    Returns:
        An iterator over dicts of arrays. Its `get_state()` is JSON, counts global batches and
        hence is the same in every process, of any number of them; `set_state` takes it.
    """
    return _batches(source, source.order(seed), batch_size, rows, num_threads)


def number_iterator(source: Source, *, batch_size: int, seed: int) -> grain.DatasetIterator:
    """The window numbers (batch_size,) of the batches that `train_iterator` reads.

    Positions of both mean the same.
    """
    return iter(source.order(seed).batch(batch_size).to_iter_dataset(_read_options(0)))


def ordered_batches(
    source: WindowSource, *, batch_size: int, rows: np.ndarray, num_threads: int
) -> Iterator[Mapping[str, Any]]:
    """Every window once, in order: this process's `rows` of each global batch of `batch_size`.

    The last batch is filled up with empty windows, so that every process has as many batches.
    """
    padded = -(-len(source) // batch_size) * batch_size
    return _batches(source, grain.MapDataset.range(padded), batch_size, rows, num_threads)


def _batches(
    source: Source,
    order: grain.MapDataset,
    batch_size: int,
    rows: np.ndarray,
    num_threads: int,
) -> grain.DatasetIterator:
    # Numbers are shuffled and batched before anything is read: a batch is one read.
    batches = order.batch(batch_size).map(lambda numbers: source.read(numbers[rows]))
    return iter(batches.to_iter_dataset(_read_options(num_threads)))


def _read_options(num_threads: int) -> grain.ReadOptions:
    # One item of these data sets is a whole batch: a few in flight keep the device busy, and
    # grain's default of 500 would hold gigabytes. Each thread reads one of them.
    in_flight = max(num_threads, 4) if num_threads else 0
    return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=in_flight)
