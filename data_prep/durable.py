"""Files that are either whole or absent, whatever happens to the process or the machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def sync_directory(folder: Path) -> None:
    """Makes creations and renames in `folder` outlast a power failure.

    Called before something is removed that they replace.
    """
    _sync(folder)


def publish(temporary: Path, final: Path) -> None:
    """Gives a completely written file its name; whoever sees the name sees all of its bytes."""
    _sync(temporary)
    os.replace(temporary, final)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def temporary_beside(final: Path, folder: Path) -> Path:
    """A new empty file in `folder`, for what is to become `final`; no two callers share one."""
    fd, name = tempfile.mkstemp(prefix=final.name + ".", suffix=".tmp", dir=folder)
    # mkstemp gives 0600; what is published has the permissions of any other file.
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(fd, 0o666 & ~umask)
    os.close(fd)
    return Path(name)


def write_file(path: Path, data: bytes) -> None:
    """Writes `path` so that it holds its old content or the new one, never part of it."""
    temporary = temporary_beside(path, path.parent)
    try:
        temporary.write_bytes(data)
        publish(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
