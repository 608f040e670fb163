"""Writing files and folders so that they are whole or absent, whenever the process is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError

# What a writer that was killed may leave behind.
LEFTOVERS = ".maven_jax-*.tmp"


def local_path(text: str | os.PathLike[str]) -> Path:
    """`text` as a path of this machine.

    Raises:
        UserError: it is an address in an object store, which `Path` would take for a folder `gs:`.
    """
    scheme, separator, _ = str(text).partition("://")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        raise UserError(
            f"{text}: addresses are not opened, folders are; mount the bucket (gs:// by `gcsfuse`, "
            "s3:// by `mount-s3`) and give its folder"
        )
    return Path(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A new empty file to fill, which becomes `path` when the block ends and goes if it fails.

    Whoever opens `path` sees its old content or the new one, never part of it. Several writers may
    be at work at once: each has a file of its own, and the last to finish counts.

    Yields:
        The file to fill, beside `path`, in a folder that is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A short name, as that of `path` may be as long as names can be.
    temporary = path.with_name(f".maven_jax-{secrets.token_hex(4)}.tmp")
    # Not by `tempfile`, whose files no other user can read.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield temporary
        publish(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_file(path: Path, data: bytes) -> None:
    """Writes `path` with all of `data`, or not at all; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys, whole or not at all; JSON has no NaN (ValueError)."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_file(path, f"{text}\n".encode())


def publish(temporary: Path, path: Path) -> None:
    """Renames a completely written file once its bytes are on the disk."""
    _sync(temporary)
    os.replace(temporary, path)


def sync_directory(folder: Path) -> None:
    """Makes creations and renames in `folder` outlast a power failure.

    Needed before something is removed that they replace.
    """
    _sync(folder)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `out` when the block ends and goes if it fails.

    Yields:
        The folder to fill, beside `out`.

    Raises:
        UserError: `out` is a file, a folder that is not empty, or cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds other things" if out.is_dir() else "is a file"
        raise UserError(f"{out}: {what} already; take another --out")
    final = Path(os.path.abspath(out))
    # A name that nobody else has: what is there by a fixed one may be somebody's.
    partial = final.with_name(f".maven_jax-{secrets.token_hex(4)}.tmp")
    try:
        partial.mkdir(parents=True)
        try:
            yield partial
            # Replaces an empty folder, but none with anything in it.
            partial.replace(final)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
