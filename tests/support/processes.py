"""A Python script in several processes that form one JAX system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.process_groups import free_port
from tests.support.root import ROOT

_JOIN = """
import sys, jax
address, count, index = sys.argv[1:4]
jax.distributed.initialize(address, int(count), int(index))
"""


def xla_flags(devices: int) -> str:
    """What makes so many devices of a process, beside the flags that the tests run with."""
    return f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"


def run_processes(script: str, *arguments: str, processes: int, devices: int) -> list[Any]:
    """Runs a script to its end; returns the last line of each process's output, read as JSON.

    Args:
        script: Python; its own arguments begin at `sys.argv[4]`. With one process it runs alone.
        arguments: of the script.
        processes: how many.
        devices: simulated devices in each.
    """
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"XLA_FLAGS": xla_flags(devices), "JAX_PLATFORMS": "cpu"}
    join = _JOIN if processes > 1 else "import sys, jax\n"
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(i) for i in range(processes)]
        started: list[subprocess.Popen] = []
        try:
            for i, path in enumerate(outputs):
                command = [sys.executable, "-c", join + script, address, str(processes), str(i)]
                with path.open("w") as out:
                    started.append(
                        subprocess.Popen(
                            [*command, *arguments],
                            stdout=out,
                            stderr=subprocess.STDOUT,
                            env=environment,
                            cwd=ROOT,
                        )
                    )
            codes = [process.wait(timeout=900) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        texts = [path.read_text() for path in outputs]
    assert codes == [0] * processes, "\n".join(texts)
    return [json.loads(text.strip().splitlines()[-1]) for text in texts]
