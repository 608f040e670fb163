"""Encoding frame by frame: inputs go through the device in batches, features to their frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import jax
import numpy as np

from maven_jax.features.device import Clock, DeviceFunction, bucket_of, pad_rows

# Some frames' inputs or features: the frames' indices (n,), increasing, and a row for each.
Batch = tuple[np.ndarray, np.ndarray]


@runtime_checkable
class FeatureStream(Protocol):
    """Features of a whole recording, read once from its first frame to its last."""

    def at(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (t, dim) and mask (t,) of the next frames, whose times (t,) are given."""
        ...


def in_batches(rows: Iterable[tuple[int, np.ndarray]], size: int) -> Iterator[Batch]:
    """Gathers (frame, row) pairs into batches of `size`; only the last may be smaller."""
    frames: list[int] = []
    batch: list[np.ndarray] = []
    for frame, row in rows:
        frames.append(frame)
        batch.append(row)
        if len(frames) == size:
            yield np.array(frames), np.stack(batch)
            frames, batch = [], []
    if frames:
        yield np.array(frames), np.stack(batch)


def run_ahead(
    run: DeviceFunction,
    sizes: tuple[int, ...],
    batches: Iterable[Batch],
    clock: Clock,
) -> Iterator[Batch]:
    """Runs batches with one in flight while the next is gathered.

    Args:
        run: takes one input with a leading axis of rows to (rows, dim).
        sizes: numbers of rows that batches are padded to (`device.buckets`).
        batches: none larger than the largest of `sizes`.
        clock: takes the device's time.

    Yields:
        The batches with their features (n, dim) float32 in place of their inputs, in order.
    """
    waiting: tuple[np.ndarray, jax.Array] | None = None
    for frames, inputs in batches:
        result = run(pad_rows(inputs, bucket_of(len(frames), sizes)), clock=clock)
        before, waiting = waiting, (frames, result)
        if before is not None:
            yield before[0], np.asarray(before[1])[: len(before[0])]
    if waiting is not None:
        yield waiting[0], np.asarray(waiting[1])[: len(waiting[0])]


def on_frames(
    batches: Iterable[Batch], num_frames: int, dim: int, max_block: int, dtype: str = "float32"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Puts features at their frames; those that no batch holds are masked.

    Args:
        batches: features of increasing frames below `num_frames`.
        num_frames: of the video.
        dim: channels of a feature.
        max_block: at most so many frames at once.
        dtype: of the features.

    Yields:
        Consecutive blocks: features (n, dim), zero where masked, and mask (n,).
    """
    done = 0
    end = (np.array([num_frames - 1]), None)
    for frames, features in itertools.chain(batches, [end] if num_frames else []):
        stop = int(frames[-1]) + 1
        while done < stop:
            border = min(done + max_block, stop)
            values, mask = np.zeros((border - done, dim), dtype), np.zeros(border - done, bool)
            if features is not None:
                inside = (frames >= done) & (frames < border)
                values[frames[inside] - done] = features[inside]
                mask[frames[inside] - done] = True
            yield values, mask
            done = border


class FrameStream:
    """Blocks of consecutive frames, read in portions of any length."""

    def __init__(self, blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Takes what `on_frames` yields; reads nothing yet."""
        self._blocks = iter(blocks)
        self._values: list[np.ndarray] = []
        self._masks: list[np.ndarray] = []
        self._count = 0

    def at(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (t, dim) and mask (t,) of the next t frames."""
        count = len(times_s)
        while self._count < count or not self._values:
            values, mask = next(self._blocks)
            self._values.append(values)
            self._masks.append(mask)
            self._count += len(mask)
        values, mask = np.concatenate(self._values), np.concatenate(self._masks)
        self._values, self._masks = [values[count:]], [mask[count:]]
        self._count -= count
        return values[:count], mask[:count]
