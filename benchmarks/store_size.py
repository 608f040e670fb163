"""Whether random windows are read as fast, and in as little memory, when the store grows.

    python -m benchmarks.store_size --out benchmarks/results/store_size.txt --folder /big/disk

Stores of MAVEN's features (1024 + 768 + 768 wide, float16, 100 frames a record), of values that do
not compress, are written one after the other, read through the shuffled batches of training and
removed. Each is read in a process of its own, twice: `from disk`, its files thrown out of the page
cache before (what has been read once stays there, if it fits in memory), and `again`, the
same windows in the same order, which are in the page cache then. `store` is what opening the store
adds to the process's own memory (the index of its videos), `peak` the most that the process has at
any time, without the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from maven_jax.data.pipeline import WindowSource, train_iterator
from maven_jax.data.windows import make_windows
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

DIMS = {"visual": 1024, "audio": 768, "text": 768}
FPS, VIDEO_FRAMES, LENGTH, BATCH, NUM_THREADS = 30.0, 3000, 100, 32, 2
FRAME_BYTES = 2 * sum(DIMS.values())


def write(out: Path, gigabytes: float) -> None:
    """A store of about so many 1e9 bytes, in videos of 100 s."""
    count = max(1, round(gigabytes * 1e9 / (VIDEO_FRAMES * FRAME_BYTES)))
    planned = [PlannedVideo(f"v{i}", "train", VIDEO_FRAMES, f"v{i}") for i in range(count)]
    specs = {m: ModalitySpec(m, dim, {}) for m, dim in DIMS.items()}
    writer = StoreWriter(out, videos=planned, modalities=specs, chunk_frames=100, provenance={})
    rng = np.random.default_rng(0)
    # Videos are pieces of the same noise from different places on, which no compression finds.
    noise = {
        m: rng.standard_normal((VIDEO_FRAMES + 997, dim)).astype(np.float16)
        for m, dim in DIMS.items()
    }
    for i, video in enumerate(planned):
        first = i % 997
        with writer.video(video.video, FPS, VIDEO_FRAMES / FPS) as store:
            store.append(
                Frames(
                    time_s=np.arange(VIDEO_FRAMES) / FPS,
                    targets=np.zeros((VIDEO_FRAMES, 2), np.float32),
                    target_mask=np.ones(VIDEO_FRAMES, bool),
                    segment_id=np.full(VIDEO_FRAMES, -1, np.int32),
                    features={m: x[first : first + VIDEO_FRAMES] for m, x in noise.items()},
                    masks={m: np.ones(VIDEO_FRAMES, bool) for m in DIMS},
                )
            )
    writer.finish()


def own_memory_mb() -> float:
    """Anonymous memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def forget(store: Store) -> None:
    """Throws the store's shards out of the page cache."""
    for shard in store.shards("train"):
        descriptor = os.open(store.path / shard["file"], os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def measure(path: Path, batches: int) -> dict[str, float]:
    """Reads `batches` batches twice; windows/s, CPU ms per window, memory in MiB."""
    before = own_memory_mb()
    store = Store(path)
    measured = {"store": own_memory_mb() - before, "peak": 0.0}
    windows = make_windows(
        store.videos("train"), kind="sliding", length=LENGTH, hop=LENGTH // 2, step_s=None
    )
    store.read(store.videos("train")[0], 0, 1)  # imports and opens what the first read does
    forget(store)
    source = WindowSource(store, windows, tuple(DIMS), {})
    for state in ("from disk", "again"):
        data = train_iterator(
            source, batch_size=BATCH, rows=np.arange(BATCH), seed=0, num_threads=NUM_THREADS
        )
        began, used = time.perf_counter(), time.process_time()
        for _ in range(batches):
            next(data)
            measured["peak"] = max(measured["peak"], own_memory_mb())
        measured[state] = batches * BATCH / (time.perf_counter() - began)
        measured[f"{state} cpu_ms"] = 1e3 * (time.process_time() - used) / (batches * BATCH)
    measured["gigabytes"] = sum(s["bytes"] for s in store.shards("train")) / 1e9
    measured["videos"], measured["windows"] = len(store.videos("train")), len(windows)
    return measured


def machine() -> str:
    """The machine and what else it did."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, load {load:.1f}"
    )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--gigabytes", type=float, nargs="+", default=[0.1, 1.0, 10.0, 30.0])
    p.add_argument("--batches", type=int, default=60, help=f"of {BATCH} windows, read twice")
    p.add_argument("--folder", type=Path, required=True, help="where the stores are written")
    p.add_argument("--out", type=Path, help="file for the table")
    p.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.batches)))
        return
    lines = [f"{args.batches} batches of {BATCH} windows of {LENGTH} frames, {NUM_THREADS} threads"]
    for gigabytes in args.gigabytes:
        store = args.folder / "store_size"
        try:
            began = time.perf_counter()
            write(store, gigabytes)
            took = time.perf_counter() - began
            os.sync()
            here = machine()
            command = [sys.executable, "-m", "benchmarks.store_size", "--measure", str(store)]
            command += ["--folder", str(args.folder), "--batches", str(args.batches)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            shutil.rmtree(store, ignore_errors=True)
        m = json.loads(done.stdout.splitlines()[-1])
        lines.append(
            f"{m['gigabytes']:6.2f} GB, {m['videos']:5,} videos, {m['windows']:7,} windows, "
            f"written in {took:5.0f} s: from disk {m['from disk']:6.1f} windows/s "
            f"({m['from disk cpu_ms']:.1f} CPU ms each), again {m['again']:6.1f} windows/s "
            f"({m['again cpu_ms']:.1f}); memory: store {m['store']:5.1f} MiB, peak "
            f"{m['peak']:6.1f} MiB [{here}]"
        )
        print(lines[-1], flush=True)
        if args.out:
            args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
