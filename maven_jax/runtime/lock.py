"""One writer in a folder at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from maven_jax.errors import UserError
from maven_jax.outputs import check_writable, records_of
from maven_jax.progress import say

_held: set[str] = set()
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def alone(folder: Path, name: str, *, shared: bool = False) -> Iterator[None]:
    """Keeps other processes, on this host or others, from doing the same in a folder.

    The lock is the system's (`fcntl`, which NFS hands on to the server). So it ends with the
    process or its host, however they end. The folder is made if it is not there, and goes again if
    the block leaves it empty.

    Args:
        folder: what is written to.
        name: of what is done there; different things do not hinder each other.
        shared: whether others may hold it too, if they share it as well.

    Raises:
        UserError: somebody else holds it (says who, and since when), or the folder cannot be
            written.
    """
    check_writable(folder)
    records = records_of(folder)
    path = records / f"{name}.lock"
    key = os.path.realpath(path)
    if key in _held:  # the system's lock does not keep a process out of its own files
        raise UserError(f"{folder}: this process is at work here already ({name})")
    new = [p for p in (records, folder, *folder.parents) if not p.exists()]
    records.mkdir(parents=True, exist_ok=True)
    try:
        file = _acquire(path, shared)
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            if not shared:  # others may hold a shared one
                path.unlink(missing_ok=True)
            file.close()
    finally:
        with contextlib.suppress(OSError):  # those that are no longer empty stay
            for made in new:
                made.rmdir()


def _acquire(path: Path, shared: bool) -> IO[str]:
    """The open lock file; closing it ends the lock."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        # Not through a link, which somebody else may have packed there: the file is rewritten.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.fdopen(os.open(path, flags, 0o666), "r+")
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                say(f"note: {path.parent} cannot be locked: let one process at a time work there")
                return file
            holder = _holder(file, path)
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(holder) from None
            raise
        if _is_current(file, path):
            _sign(file)
            return file
        file.close()  # its holder has removed it meanwhile


def _is_current(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: IO[str]) -> None:
    """Writes down who holds it."""
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, file)
    file.flush()


def _holder(file: IO[str], path: Path) -> str:
    """What to tell somebody who comes second."""
    folder, what = path.parent.parent, path.stem
    try:
        record = json.loads(file.read(1000))
        who = f"process {record['pid']} on {record['host']} since {record['since']}"
    except (ValueError, KeyError, TypeError):
        who = "another process"
    return (
        f"{folder}: {who} is at work here ({what}); wait for it or stop it. If its host is gone, "
        f"remove {path}"
    )
