"""From the store to batches: the order of windows, and this process's rows of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import grain
import jax
import numpy as np

from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.store.schema import ExtraTarget, ModalitySpec, VideoEntry, mask_field
from maven_jax.types import Batch


@runtime_checkable
class FrameStore(Protocol):
    """What windows are read from: a `Store`, or the frames of a video that is being encoded."""

    path: Path
    modalities: dict[str, ModalitySpec]
    extra_targets: dict[str, ExtraTarget]

    def read_into(
        self,
        spans: Sequence[tuple[VideoEntry, slice]],
        outputs: Sequence[Mapping[str, np.ndarray]],
    ) -> None: ...


class WindowSource:
    """Random access to windows as dicts of arrays of one shape (a grain data source).

    Args:
        store: the feature store.
        windows: which frames; see `make_windows`.
        modalities: which to read, in this order.
        single_vector: modalities that become one vector per window, the mean over its observed
            frames -> seconds of the window that count, from its start (None: all).
        extra_targets: to read as well; all masked in a store without them.

    Raises:
        UserError: a mean vector of a modality of uint8 values.
    """

    def __init__(
        self,
        store: FrameStore,
        windows: Windows,
        modalities: tuple[str, ...],
        single_vector: Mapping[str, float | None],
        extra_targets: Mapping[str, ExtraTarget] = MappingProxyType({}),
    ):
        self._store, self._windows = store, windows
        self._extra = dict(extra_targets)
        own = store.extra_targets
        self._stored_extra = [
            name for name, target in self._extra.items() if own.get(name) == target
        ]
        self._modalities = modalities
        self._single = {m: s for m, s in single_vector.items() if m in modalities}
        for name in self._single:
            if store.modalities[name].dtype == "uint8":
                raise UserError(
                    f"config.data.single_vector.{name}: {store.path} holds raw uint8 values of "
                    f"{name}; no encoder takes their mean over a window"
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

        All are read from the store in one call, straight into the batch. A number past the last
        window gives an empty one.
        """
        windows = self._windows
        batch = self._empty_batch(len(indices))
        spans, outputs = [], []
        for row, index in enumerate(int(i) for i in indices):
            if index < len(self):
                entry, span = windows.entries[windows.video[index]], windows.frames(index)
                n = len(range(span.start, span.stop, span.step))
                spans.append((entry, span))
                outputs.append(self._outputs(batch, row, n))
                batch["window"][row], batch["frame_mask"][row, :n] = index, True
            else:
                n = 0
            self._clear(batch, row, n)
        self._store.read_into(spans, outputs)
        rows = np.flatnonzero(batch["window"] >= 0)
        for row, fields in zip(rows, outputs):
            for name in self._single:
                mask = fields[mask_field(name)]
                x, mask = _mean_vector(fields[name], mask, fields["time_s"], self._single[name])
                batch["features"][name][row], batch["modality_masks"][name][row] = x, mask
        return batch

    def _empty_batch(self, count: int) -> dict[str, Any]:
        """Arrays for so many windows; only `window` is filled, with -1."""
        length = self._windows.length
        features, masks = {}, {}
        for name in self._modalities:
            spec, n = self._store.modalities[name], 1 if name in self._single else length
            features[name] = np.empty((count, n, spec.dim), spec.dtype)
            masks[name] = np.empty((count, n), bool)
        return {
            "features": features,
            "modality_masks": masks,
            "frame_mask": np.empty((count, length), bool),
            "targets": np.empty((count, length, 2), np.float32),
            "target_mask": np.empty((count, length), bool),
            "window": np.full(count, -1, np.int32),
            "extra_targets": {
                n: np.zeros((count, length, t.width), np.float32) for n, t in self._extra.items()
            },
            "extra_masks": {n: np.zeros((count, length), bool) for n in self._extra},
        }

    def _framed(self, batch: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
        """Record field and array (b, length, …) of everything with a value for every frame."""
        yield "targets", batch["targets"]
        yield "target_mask", batch["target_mask"]
        for name in self._modalities:
            if name not in self._single:
                yield name, batch["features"][name]
                yield mask_field(name), batch["modality_masks"][name]
        for name in self._stored_extra:
            yield name, batch["extra_targets"][name]
            yield mask_field(name), batch["extra_masks"][name]

    def _outputs(self, batch: Mapping[str, Any], row: int, n: int) -> dict[str, np.ndarray]:
        """Arrays for the `n` frames of a window: views of its row, or new ones to take means of."""
        arrays = {field: array[row, :n] for field, array in self._framed(batch)}
        if self._single:
            arrays["time_s"] = np.empty(n, np.float64)
        for name in self._single:
            spec = self._store.modalities[name]
            arrays[name] = np.empty((n, spec.dim), spec.dtype)
            arrays[mask_field(name)] = np.empty(n, bool)
        return arrays

    def _clear(self, batch: Mapping[str, Any], row: int, n: int) -> None:
        """Zeros after a window's `n` frames."""
        batch["frame_mask"][row, n:] = False
        for _, array in self._framed(batch):
            array[row, n:] = 0
        for name in self._single:
            batch["features"][name][row] = 0
            batch["modality_masks"][name][row] = False


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

    A global batch has the same rows in the same order however many processes there are; each
    process reads the rows that its devices take.

    Args:
        source: the windows.
        batch_size: rows of the global batch.
        rows: those that this process reads, see `sharding.process_rows`.
        seed: of the order.
        num_threads: threads that read and decode batches; 0 reads in the calling thread.

    Returns:
        An iterator over dicts of arrays. Its `get_state()` is JSON for `set_state`; it counts
        global batches, so it is the same in every process, however many there are.
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


def listed_batches(
    source: WindowSource, numbers: Sequence[np.ndarray], *, rows: np.ndarray, num_threads: int
) -> Iterator[Mapping[str, Any]]:
    """This process's `rows` of each global batch, whose windows' numbers are given.

    A number past the last window gives an empty one.
    """
    batches = grain.MapDataset.range(len(numbers)).map(lambda i: source.read(numbers[i][rows]))
    return iter(batches.to_iter_dataset(_read_options(num_threads)))


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
    # One item of these data sets is a whole batch, read by one thread: a few in flight keep the
    # device busy, and grain's default of 500 would hold gigabytes.
    in_flight = max(num_threads, 4) if num_threads else 0
    return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=in_flight)
