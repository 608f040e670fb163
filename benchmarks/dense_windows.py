"""How fast dense windows of wide features are read, by the number of frames in a record.

    python -m benchmarks.dense_windows --out benchmarks/results/dense_windows.txt

A window is RJCA's: 16 frames, 32 apart, of features 49 x 512 wide (float16) with 512 of sound. A
record is fetched and decoded whole, so of a record of 32 frames 31 are read for nothing. Measured
for shuffled windows (training) and for all windows in order (evaluation), through the batches that
training takes, each `cold` (the files thrown out of the page cache before) and `warm`; the median
of `--rounds`, with the processor time of one window, which hardly depends on what else the machine
does. `records/window` and `MB/window` are what one window fetches, `useful` what it keeps.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.data.pipeline import WindowSource, ordered_batches, train_iterator
from maven_jax.data.windows import Windows, make_windows
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

DIMS = {"visual": 49 * 512, "audio": 512}
FPS, LENGTH, STRIDE, BATCH = 30.0, 16, 32, 8
BLOCK_FRAMES = 100


def write(out: Path, videos: int, frames: int, chunk_frames: int) -> Store:
    """Features as a ReLU leaves them: half of them 0, the others without structure."""
    planned = [PlannedVideo(f"v{i}", "train", frames, f"v{i}") for i in range(videos)]
    specs = {m: ModalitySpec(m, dim, {}) for m, dim in DIMS.items()}
    writer = StoreWriter(
        out, videos=planned, modalities=specs, chunk_frames=chunk_frames, provenance={}
    )
    rng = np.random.default_rng(0)
    for video in planned:
        with writer.video(video.video, FPS, frames / FPS) as store:
            for start in range(0, frames, BLOCK_FRAMES):
                n = min(BLOCK_FRAMES, frames - start)
                store.append(
                    Frames(
                        time_s=(start + np.arange(n)) / FPS,
                        targets=np.zeros((n, 2), np.float32),
                        target_mask=np.ones(n, bool),
                        segment_id=np.full(n, -1, np.int32),
                        features={
                            m: np.maximum(rng.standard_normal((n, dim), np.float32), 0)
                            for m, dim in DIMS.items()
                        },
                        masks={m: np.ones(n, bool) for m in DIMS},
                    )
                )
    return writer.finish()


def files_of(store: Store) -> list[Path]:
    """The store's shards."""
    return [store.path / s["file"] for split in store.splits for s in store.shards(split)]


def forget(store: Store) -> None:
    """Throws the store's shards out of the page cache."""
    for file in files_of(store):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def batches(source: WindowSource, order: str, num_threads: int, seed: int) -> Iterator[Any]:
    """The batches of training, or of evaluation."""
    common: dict[str, Any] = dict(batch_size=BATCH, rows=np.arange(BATCH), num_threads=num_threads)
    if order == "in order":
        return ordered_batches(source, **common)
    return train_iterator(source, seed=seed, **common)


def time_of(
    store: Store, windows: Windows, order: str, num_threads: int, count: int, seed: int
) -> tuple[float, float]:
    """Windows per second, and processor ms per window, of the first `count` batches."""
    source = WindowSource(store, windows, tuple(DIMS), {})
    began, used = time.perf_counter(), time.process_time()
    taken = 0
    for _, batch in zip(range(count), batches(source, order, num_threads, seed)):
        taken += len(batch["window"])
    took = time.perf_counter() - began
    return taken / took, 1e3 * (time.process_time() - used) / taken


def measure(folder: Path, args: argparse.Namespace, chunk_frames: int) -> str:
    """Writes a store, reads it in all ways, removes it; returns the table's rows."""
    began = time.perf_counter()
    store = write(folder, args.videos, args.frames, chunk_frames)
    write_s = time.perf_counter() - began
    windows = make_windows(
        store.videos("train"), kind="dense", length=LENGTH, hop=1, step_s=STRIDE / FPS
    )
    store.read(store.videos("train")[0], 0, 1)  # imports and opens what the first read does
    size = sum(f.stat().st_size for f in files_of(store))
    starts = windows.start[: STRIDE * 2 : 7]
    records = statistics.fmean(
        len({f // chunk_frames for f in range(s, s + LENGTH * STRIDE, STRIDE)}) for s in starts
    )
    record_mb = size / sum(s["records"] for s in store.shards("train")) / 1e6
    useful_mb = LENGTH * sum(s.frame_bytes for s in store.modalities.values()) / 1e6
    rows = [
        f"chunk_frames={chunk_frames}: {size / 1e6:,.0f} MB on disk, written in {write_s:.1f} s; "
        f"{records:.1f} records/window, {records * record_mb:.2f} MB/window compressed, "
        f"useful {useful_mb:.2f} MB before compression"
    ]
    for order in ("shuffled", "in order"):
        for num_threads in (0, 2):
            times: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
            for seed in range(args.rounds):
                forget(store)
                for state in times:
                    times[state].append(
                        time_of(store, windows, order, num_threads, args.batches, seed)
                    )
            shown = []
            for state, readings in times.items():
                rates, used = zip(*readings)
                shown.append(
                    f"{state} {statistics.median(rates):6.1f} ({min(rates):.1f} to "
                    f"{max(rates):.1f}) windows/s, {statistics.median(used):.1f} CPU ms/window"
                )
            rows.append(f"    {order:8} {num_threads} threads: {'; '.join(shown)}")
    shutil.rmtree(folder)
    return "\n".join(rows)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chunk-frames", type=int, nargs="+", default=[1, 4, 8, 32])
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for the output, too")
    args = parser.parse_args()
    lines = [
        f"{args.videos} videos of {args.frames} frames, windows of {LENGTH} frames {STRIDE} apart, "
        f"batches of {BATCH}, {args.batches} per measurement, median (range) of {args.rounds}; "
        f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}"
    ]
    print(lines[0], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for chunk_frames in args.chunk_frames:
            lines.append(measure(Path(folder) / "store", args, chunk_frames))
            print(lines[-1], flush=True)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
