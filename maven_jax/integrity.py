"""Whether a folder still holds what was written: seals of its files."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEAL = "seal.json"


def seal(folder: Path) -> None:
    """Forces the files of a folder onto the disk and writes down their sizes and digests.

    The seal appears under its name only when it is whole.

    Raises:
        OSError: a file cannot be read, or the seal cannot be written.
    """
    files = {}
    for path in _files(folder):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = file.tell()
        files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    text = json.dumps({"files": files, "sha256": _digest(files)}, indent=1, sort_keys=True)
    temporary = folder / f"{SEAL}.incomplete"
    with temporary.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / SEAL)


def is_sealed(folder: Path) -> bool:
    return (folder / SEAL).exists()


def find_fault(folder: Path) -> str | None:
    """The first difference between a sealed folder and its seal; None if there is none.

    Files that came later are no fault.

    Returns:
        The file within the folder and what is wrong with it, for a message.
    """
    try:
        written = json.loads((folder / SEAL).read_bytes())
        files = written["files"]
        if written["sha256"] != _digest(files):
            raise ValueError("digest")
    except (ValueError, KeyError, TypeError):
        return f"{SEAL} is not as it was written"
    except OSError as error:
        return f"{SEAL}: {error.strerror}"
    for name, wanted in files.items():
        try:
            with (folder / name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != wanted["bytes"]:
                    return f"{name} has {size} bytes, {wanted['bytes']} were written"
                if hashlib.file_digest(file, "sha256").hexdigest() != wanted["sha256"]:
                    return f"{name} holds other bytes than were written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name}: {error.strerror}"
    return None


def silence_late_callbacks() -> None:
    """Keeps a traceback off the screen for every array that was under way when another failed.

    After the first failure orbax closes its event loop; tensorstore's callbacks for the rest find
    it closed, and Python prints that, for it cannot be raised. The failure itself is raised.
    """
    before = sys.unraisablehook
    if getattr(before, "silences_late_callbacks", False):
        return

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    hook.silences_late_callbacks = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = hook


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (SEAL, f"{SEAL}.incomplete"):
            yield path


def _digest(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
