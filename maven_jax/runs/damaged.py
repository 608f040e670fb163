"""The folder of a workdir where damaged parts of it are put aside."""

from __future__ import annotations

from pathlib import Path


def set_aside(workdir: Path, name: str) -> Path:
    """A new path in `workdir/damaged`: `name`, or with a number behind it if there is one."""
    path = free = workdir / "damaged" / name
    path.parent.mkdir(exist_ok=True)
    count = 1
    while free.exists():
        count += 1
        free = path.with_name(f"{path.name}-{count}")
    return free
