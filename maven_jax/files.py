"""Files and folders that are whole or absent, and seals that tell whether they still are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError


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


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under another name and renames it, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".incomplete")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)


@contextlib.contextmanager
def appearing_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block is done, and goes if it fails.

    Raises:
        UserError: `out` is a file or holds something, or cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        what = "holds other things" if out.is_dir() else "is a file"
        raise UserError(f"{out}: {what} already; take another --out")
    whole = Path(os.path.abspath(out))
    partial = whole.with_name(f".{whole.name}.incomplete")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            # An empty folder may be replaced, a folder with anything in it may not.
            partial.replace(whole)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
