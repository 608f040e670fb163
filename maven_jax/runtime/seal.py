"""A seal on a finished folder, which tells whether its files are still as they were written."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.inputs import read_json

SEAL = "seal.json"


def seal(folder: Path) -> None:
    """Forces the files of a folder onto the disk and records their sizes and digests.

    Raises:
        OSError: a file cannot be read, or the seal cannot be written.
    """
    files = {}
    for path in _files(folder):
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = file.tell()
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": sha256}
    write_json(folder / SEAL, {"files": files, "sha256": digest_of_list(files)})


def is_sealed(folder: Path) -> bool:
    """Whether the folder has a seal, intact or not."""
    return (folder / SEAL).exists()


def read_seal(folder: Path) -> dict[str, dict[str, Any]]:
    """File -> `bytes` and `sha256`, as a seal has them.

    Raises:
        UserError: there is none, or it is not as `seal` wrote it.
    """
    pattern = {"files": {str: {"bytes": int, "sha256": str}}, "sha256": str}
    record = read_json(folder / SEAL, "a seal", pattern)
    if record["sha256"] != digest_of_list(record["files"]):
        raise UserError(f"{folder / SEAL}: not as it was written")
    return record["files"]


def find_fault(folder: Path, within: str = "") -> str | None:
    """The first difference between a sealed folder and its seal; None if there is none.

    Files that were added later are no fault.

    Args:
        folder: sealed.
        within: compares only files whose path in the folder begins so.

    Returns:
        The file within the folder and what is wrong with it, for a message.
    """
    try:
        files = read_seal(folder)
    except UserError:
        return f"{SEAL} is not as it was written"
    for name, sealed in files.items():
        if not name.startswith(within):
            continue
        parts = Path(name).parts
        if ".." in parts or not parts or Path(name).is_absolute():
            return f"{SEAL} names {name!r}, which is not in the folder"
        try:
            if not stat.S_ISREG((folder / name).stat().st_mode):
                return f"{name} is not a regular file"
            with (folder / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != sealed["bytes"]:
                    return f"{name} has {size} bytes, {sealed['bytes']} were written"
                if hashlib.file_digest(file, "sha256").hexdigest() != sealed["sha256"]:
                    return f"{name} holds other bytes than were written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def _files(folder: Path) -> Iterator[Path]:
    """All but the seal, and what a killed process left of writing one."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(SEAL):
            yield path


def digest_of_list(files: dict[str, Any]) -> str:
    """The digest by which a seal tells that its own list of files is intact."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
