"""Readers that do what none may do, to see that the harness notices."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.kinds import Kind
from tests.hostile.readers import RefusedError


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text("healthy")


def _refuse(said: str) -> None:
    print(said, file=sys.stderr)
    raise RefusedError


def _run_file(path: Path) -> None:
    exec(compile("1", path, "exec"))


# What ends as what.
ENDS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "raise": ("traceback", lambda path: 1 / 0),
    "die": ("traceback", lambda path: os.abort()),
    "two lines": ("traceback", lambda path: _refuse("a\nb")),
    "control": ("traceback", lambda path: _refuse("\x1b[2J")),
    "no word": ("traceback", lambda path: _refuse("")),
    "sleep": ("hang", lambda path: time.sleep(3600)),
    "memory": ("memory", lambda path: len(b"\1" * (2200 << 20))),
    "other": ("silent", lambda path: "other"),
    "write": ("outside", lambda path: Path("left").write_text("")),
    "delete": ("outside", lambda path: Path("secret.txt").unlink()),
    "network": ("outside", lambda path: socket.getaddrinfo("localhost", 9)),
    "program": ("outside", lambda path: subprocess.run(["true"])),
    "code": ("outside", _run_file),
    "pickle": ("outside", lambda path: pickle.loads(b"cos\ngetpid\n.")),
    "said": ("right", lambda path: print("other") or "other"),
    "refuse": ("refused", lambda path: _refuse("a.txt: damaged")),
}


def _only_if_changed(offence: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        path = folder / "a.txt"
        healthy = path.is_file() and path.read_bytes() == b"healthy"
        return "healthy" if healthy else offence(path)

    return read


def _change(folder: Path) -> None:
    path = folder / "a.txt"
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_text("changed")


OFFENCES = {
    name: Kind(_make, "*.txt", _only_if_changed(offence), _change)
    for name, (_, offence) in ENDS.items()
}
