"""One process for each row of a benchmark: all compile side by side, then each measures alone."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maven_jax.progress import say

_POLL_S = 0.1


def wait_for_turn(folder: Path, name: str) -> None:
    """In a row's process: tells that it is ready, and returns when it may measure."""
    (folder / f"{name}.ready").touch()
    while not (folder / f"{name}.go").exists():
        time.sleep(_POLL_S)


def measure_in_turns(
    command: Sequence[str], names: Sequence[str], end: float, measuring_s: float
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Runs a process per row; gives each name with its rows, none for one that failed.

    Args:
        command: of a module; `--row NAME --json FILE --turns FOLDER` are added to it.
        names: of the rows.
        end: time (of `time.monotonic`) at which all must be over.
        measuring_s: seconds that a row is given to measure; who is not ready when the last ones
            must begin is left out.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = {}
        for row in names:
            own = ["--row", row, "--json", str(folder / f"{row}.json"), "--turns", str(folder)]
            processes[row] = subprocess.Popen([sys.executable, "-m", *command, *own])
        try:
            last_call = end - measuring_s * len(names)
            while time.monotonic() < last_call and not all(
                (folder / f"{row}.ready").exists() or process.poll() is not None
                for row, process in processes.items()
            ):
                time.sleep(_POLL_S)
            # What still compiles would disturb the others.
            for row, process in processes.items():
                if not (folder / f"{row}.ready").exists() and process.poll() is None:
                    say(f"== {row}: no time, it still compiles")
                    process.kill()
            for row, process in processes.items():
                (folder / f"{row}.go").touch()
                process.wait()
                result = folder / f"{row}.json"
                yield row, json.loads(result.read_text()) if result.exists() else []
        finally:
            for process in processes.values():
                process.kill()
