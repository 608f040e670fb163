"""Shuffled windows from a store, against raw reads of the same records, in turns.

    maven-jax bench loader resident

Ours is the batch that training takes: read, decoded, cut, padded, stacked, in one process with the
recipe's threads. The peer only asks ArrayRecord for the bytes of as many records, batch by batch,
and does nothing with them. Each reading starts without a batch in flight and ends without one.

`resident` puts a split of as wide features onto the devices, which has no peer.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from benchmarks.side_by_side import Row, compare
from maven_jax.data.pipeline import WindowSource, train_iterator
from maven_jax.data.resident import ResidentWindows
from maven_jax.data.windows import Windows, make_windows
from maven_jax.runtime.sharding import make_mesh
from maven_jax.store.reader import Store
from tests.support.stores import write_small_store

WIDTHS = {"visual": 1024, "audio": 768, "text": 768}
LENGTH, HOP, BATCH, BATCHES, THREADS = 300, 200, 8, 8, 2
SIZES = (48, 12, 96)  # videos of 1,500 frames in the training split


class Part:
    """The first batches of an epoch, as a source: nothing is read ahead behind the last one."""

    def __init__(self, source: WindowSource):
        self._source, self.read = source, source.read

    def order(self, seed: int) -> grain.MapDataset:
        return self._source.order(seed)[: BATCHES * BATCH]


def _small_store(folder: Path, videos: int, frames: int) -> tuple[Store, Windows]:
    """A store of videos of so many frames each, and its windows."""
    store = write_small_store(
        folder / "store",
        videos=videos,
        frames=frames,
        modalities=WIDTHS,
        splits=("train",),
        shard_bytes=2**28,
    )
    windows = make_windows(
        store.videos("train"), annotated=True, kind="sliding", length=LENGTH, hop=HOP, step_s=None
    )
    return store, windows


def with_videos(name: str, videos: int, repeats: int, goal: float | None) -> Row:
    """One row, of a store that is made for it and removed."""
    with tempfile.TemporaryDirectory() as folder:
        store, windows = _small_store(Path(folder), videos, 1500)
        entries = store.videos("train")
        source = WindowSource(store, windows, tuple(WIDTHS), {})
        seeds = itertools.count()
        raw = ArrayRecordDataSource(
            [str(store.path / shard["file"]) for shard in store.shards("train")]
        )
        dice = np.random.default_rng(0)

        def ours() -> None:
            part: Any = Part(source)
            batches = train_iterator(
                part, batch_size=BATCH, rows=np.arange(BATCH), seed=next(seeds), num_threads=THREADS
            )
            assert sum(1 for _ in batches) == BATCHES

        def records(window: int) -> range:
            entry, frames = entries[windows.video[window]], windows.frames(window)
            first = frames.start // store.chunk_frames
            last = (frames.stop - 1) // store.chunk_frames
            return range(entry.first_record + first, entry.first_record + last + 1)

        def peer() -> None:
            for _ in range(BATCHES):
                drawn = dice.integers(len(windows), size=BATCH)
                raw.__getitems__([key for window in drawn for key in records(int(window))])

        row = compare(
            name,
            f"{BATCHES * BATCH} shuffled windows of {LENGTH} frames from {videos} videos",
            ours,
            peer,
            repeats=repeats,
            peer_name="raw ArrayRecord reads of as many records",
            goal=goal,
            size={"videos": videos},
        )
        row.facts["windows_per_s"] = BATCHES * BATCH / row.ours_s
        return row


def resident(name: str, repeats: int) -> Row:
    """A split of long videos onto the devices, as `data.resident` does it."""
    with tempfile.TemporaryDirectory() as folder:
        store, windows = _small_store(Path(folder), 12, 4857)
        entries = store.videos("train")

        def load() -> None:
            loaded = ResidentWindows(store, windows, tuple(WIDTHS), {}, make_mesh(1, 1))
            jax.block_until_ready(loaded.arrays)

        frames = sum(entry.num_frames for entry in entries)
        work = f"{frames:,} frames of {len(entries)} videos onto the devices"
        row = compare(name, work, load, None, repeats=repeats)
        row.facts["frames_per_s"] = frames / row.ours_s
        return row


def measure(name: str, repeats: int, growth: bool) -> Iterator[Row]:
    """The rows of the claim; with `growth`, for other numbers of videos too."""
    if name == "resident":
        yield resident(name, repeats)
        return
    yield with_videos(name, SIZES[0], repeats, 0.5)
    for videos in SIZES[1:] if growth else ():
        yield with_videos(f"{name}/{videos}", videos, repeats, None)
