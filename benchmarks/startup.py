"""Seconds from the command to the first training step, with a warm compilation cache.

    maven-jax bench startup

Every recipe of `configs/` at its full size, with `maven-jax train` in a process of its own, on a
small store of random features of the published encoders' widths. The first run of a recipe fills
the cache and is not counted. The time ends when the first step begins: its programs are compiled,
its weights drawn and its batch read. How long the step takes is another row's matter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.random_store import MAVEN, RJCA, RJCMA, WIDTHS
from benchmarks.side_by_side import Row, machine, versions
from tests.support.stores import write_small_store


def first_step_s(recipe: str, store: Path, workdir: Path, cache: Path) -> float:
    """Seconds from the start of the command to the line that its first step begins."""
    command = [sys.executable, "-m", "maven_jax", "train", "--config", recipe]
    command += ["--workdir", str(workdir), f"--config.data.store={store}"]
    command += ["--config.train.log_every_steps=1", "--config.data.synthetic=None"]
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
    )
    assert process.stdout is not None
    printed = []
    try:
        for line in process.stdout:
            printed.append(line)
            if line.startswith("the first step begins"):
                return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
    raise RuntimeError(f"{recipe} ended before its first step:\n{''.join(printed[-20:])}")


def measure(name: str, repeats: int, growth: bool) -> Iterator[Row]:
    """A row for each recipe; there are no other sizes."""
    with tempfile.TemporaryDirectory() as folder:
        stores = {}
        for widths in (MAVEN, RJCMA, RJCA):
            path = Path(folder) / f"store_{len(stores)}"
            write_small_store(path, videos=8, frames=700, modalities=widths)
            stores[tuple(widths.items())] = path
        for i, (recipe, widths) in enumerate(WIDTHS.items()):
            described = machine()
            seconds = [
                first_step_s(
                    recipe,
                    stores[tuple(widths.items())],
                    Path(folder) / f"run_{i}_{j}",
                    Path(folder) / "cache",
                )
                for j in range(4)
            ]
            cold, *warm = seconds
            warm.sort()
            yield Row(
                name=f"{name}/{recipe}",
                work="from the command to the first step, warm cache",
                peer="",
                ours_s=warm[1],
                peer_s=None,
                spread=(warm[-1] - warm[0]) / warm[1],
                facts={"cold_s": cold, "limit_s": 15.0},
                machine=described,
                versions=versions(),
            )
