"""Several real processes that make up one run, on this machine, over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.support.root import ROOT

# For a group to end or to get somewhere; a busy machine may be ten times slower than an idle one.
PATIENCE_S = 900.0
# For what the shell prints after a process has ended.
AFTER_ITS_END_S = 60.0


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Group:
    """Processes 0 to n-1 of one run, none of which outlives the context.

    Args:
        folder: for the output of each.
        command: a command of `maven-jax` with its options.
        count: how many processes.
        program: Python to run in each before the command; `PROCESS` is its number.
    """

    def __init__(self, folder: Path, command: list[str], count: int = 2, program: str = ""):
        code = f"PROCESS = int(sys.argv[1])\n{program}\n"
        code += "from maven_jax.__main__ import main\nsys.exit(main(sys.argv[2:]))"
        port, environment = free_port(), os.environ | {"PYTHONPATH": str(ROOT)}
        folder.mkdir(parents=True, exist_ok=True)
        self.processes: list[subprocess.Popen] = []
        self._logs = [folder / f"{port}.{i}.log" for i in range(count)]
        for i, log in enumerate(self._logs):
            flags = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count)]
            flags = [*flags, "--process-id", str(i)] if count > 1 else []
            with log.open("w") as out:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", f"import sys\n{code}", str(i), *command, *flags],
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                )

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type | None, error: object, where: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def output(self, i: int) -> str:
        """What a process has printed so far."""
        return self._logs[i].read_text()

    def last_line(self, i: int) -> str:
        """A process's last line; waits for what is printed right after its end."""
        self._until(lambda: self.output(i).endswith("\n"), i)
        return self.output(i).splitlines()[-1]

    def wait_for(self, text: str, i: int = 0) -> None:
        """Waits until process `i` has printed `text`."""
        self._until(lambda: text in self.output(i), i)

    def signal(self, number: int, *which: int) -> None:
        """Sends a signal to some of them."""
        for i in which:
            self.processes[i].send_signal(number)

    def codes(self, *which: int) -> list[int]:
        """Waits for some processes to end, by default all; returns their exit codes."""
        numbers = which or range(len(self.processes))
        return [self.processes[i].wait(timeout=PATIENCE_S) for i in numbers]

    def _until(self, condition: Callable[[], bool], i: int) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if self.processes[i].poll() is not None:  # a line may follow, but soon
                end = min(end, time.monotonic() + AFTER_ITS_END_S)
            assert time.monotonic() < end, self.output(i)
            time.sleep(0.1)
