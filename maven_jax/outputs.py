"""What commands write into folders of the user: nothing that is not theirs is replaced.

A command gathers the files of one product (the prediction of a clip, the scores of a split) in a
folder of its own and then moves them into place. It replaces what lies there only if a record says
that the same product put it there, and if it is still as it was. The records lie beside the files,
in `.maven_jax/`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.inputs import read_json

RECORDS = ".maven_jax"
_FORMAT = "maven_jax product"
# Larger files are told apart by their size, beginning and end.
_DIGESTED_BYTES = 64 * 2**20


class Product:
    """The files that one call of a command leaves in a folder.

        product = Product(out, "predict", "clip.mp4", inputs=[clip, transcript])
        product.check("clip.csv", "clip.png")  # before any work
        with product.writing() as folder:
            ...  # fills folder / "clip.csv"
        # now they are in `out`

    Args:
        root: the folder; made when there is something to write.
        command: which command writes.
        purpose: what the files are of; the same command with another purpose replaces nothing.
        inputs: files and folders that this call reads; nothing of them is replaced.
        force: whether to replace what others wrote; None if the command has no such option.
        folders: paths within `root` that are moved and compared as a whole.
        whole: whether files of an earlier product that the new one lacks are removed.
    """

    def __init__(
        self,
        root: Path,
        command: str,
        purpose: str,
        *,
        inputs: Iterable[Path] = (),
        force: bool | None = False,
        folders: Iterable[str] = (),
        whole: bool = False,
    ):
        self.root = root
        self._command, self._purpose, self._force = command, purpose, force
        self._inputs, self._folders, self._whole = list(inputs), set(folders), whole
        digest = hashlib.sha256(f"{command}\0{purpose}".encode(errors="replace")).hexdigest()
        self._record = root / RECORDS / f"{command}-{digest[:16]}.json"

    def check(self, *names: str) -> None:
        """Raises UserError if the folder or one of these names in it cannot be written.

        Nothing is made or changed.
        """
        record = self._read(self._record)
        for name in names:
            self._check(name, record)
        check_writable(self.root, names)

    def _check(self, name: str, record: dict[str, list[str]]) -> None:
        target = self.root / name
        if not self._is_inside(name):
            raise UserError(f"{target}: a link leads out of {self.root}; remove it")
        try:
            mode = target.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return  # `check_writable` tells one from the other
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror})") from error
        for path in self._inputs:
            if path.exists() and target.exists() and os.path.samefile(path, target):
                raise UserError(f"{target}: would replace {path}, which this command reads")
        kind = stat.S_ISDIR if name in self._folders else stat.S_ISREG
        link = stat.S_ISLNK(mode)
        if not (kind(mode) or (link and self._force)):
            what = "a link" if link else "a folder" if stat.S_ISDIR(mode) else "no plain file"
            raise UserError(
                f"{target}: is {what}, which is not replaced; take another name or folder"
            )
        if name in record and not link and fingerprint(target) in record[name]:
            return
        for path in self._inputs:
            if path.is_dir() and target.resolve().is_relative_to(path.resolve()):
                raise UserError(f"{target}: is part of {path}, which this command reads")
        if self._force:
            return
        if name in record:
            reason = f"was changed after `{self._command}` wrote it"
        else:
            reason = f"is there already{self._writer_of(name)}"
        cure = "" if self._force is None else ", or --force to replace it"
        raise UserError(f"{target}: {reason}; take another name or folder{cure}")

    def mark_whole(self, names: Iterable[str], made_by: str) -> None:
        """Notes that these files are all that a call leaves, and what that call was (`made_by`)."""
        value = _read_record(self._record)
        write_json(self._record, value | {"whole": sorted(names), "made_by": made_by})

    def whole(self, made_by: str) -> list[str]:
        """The files of `mark_whole` if the same call left them and none has changed, or none."""
        value, record = _read_record(self._record), self._read(self._record)
        names = value.get("whole")
        if value.get("made_by") != made_by or not isinstance(names, list):
            return []
        return names if all(n in record and self._is_unchanged(n, record) for n in names) else []

    def _is_inside(self, name: str) -> bool:
        """Whether no folder on the way to a name is a link that leads out of `root`."""
        return (self.root / name).parent.resolve().is_relative_to(self.root.resolve())

    def _writer_of(self, name: str) -> str:
        """Which other product put a file there, if any did, for a message."""
        for path in sorted(self._record.parent.glob("*.json")):
            value = _read_record(path)
            if isinstance(value.get("files"), dict) and name in value["files"]:
                return f", written by `{value.get('command')}` for {value.get('purpose')}"
        return f" and not written by `{self._command}` for {self._purpose}"

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """A new folder to fill, whose files move into `root` when the block ends.

        Raises:
            UserError: see `check`; what was there stays as it was.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        records = records_of(self.root)
        records.mkdir(exist_ok=True)
        staged = records / secrets.token_hex(4)
        staged.mkdir()
        try:
            yield staged
            self._publish(staged)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _publish(self, staged: Path) -> None:
        names = self._names(staged)
        earlier = self._read(self._record)
        for name in names:
            self._check(name, earlier)
        now = {name: [fingerprint(staged / name)] for name in names}
        # A process that is killed between here and the end leaves old files or new ones, both
        # known as this product's.
        self._write({k: [*earlier.get(k, []), *now.get(k, [])] for k in {**earlier, **now}})
        lacking = [name for name in earlier if name not in now]
        gone = [name for name in lacking if self._whole and self._is_unchanged(name, earlier)]
        replaced = staged.with_name(f"{staged.name}-old")
        try:
            replaced.mkdir()
            for i, name in enumerate([*gone, *names]):
                # A file is replaced in one step; a folder cannot be.
                if os.path.lexists(self.root / name) and (name in gone or name in self._folders):
                    os.replace(self.root / name, replaced / str(i))
                if name in now:
                    (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(staged / name, self.root / name)
            self._write(now | {k: v for k, v in earlier.items() if k in lacking and k not in gone})
        finally:
            shutil.rmtree(replaced, ignore_errors=True)

    def _names(self, staged: Path) -> list[str]:
        """What was written, with `/` between folders, in order."""
        names = []
        for folder, folders, files in os.walk(staged):
            here = Path(folder).relative_to(staged)
            whole = [f for f in folders if (here / f).as_posix() in self._folders]
            folders[:] = [f for f in folders if f not in whole]
            names += [(here / name).as_posix() for name in (*files, *whole)]
        return sorted(names)

    def _is_unchanged(self, name: str, record: dict[str, list[str]]) -> bool:
        path = self.root / name
        return (
            self._is_inside(name)
            and path.exists()
            and not path.is_symlink()
            and fingerprint(path) in record[name]
        )

    def _read(self, path: Path) -> dict[str, list[str]]:
        """The names of this product, with the fingerprints of their last versions."""
        value = _read_record(path)
        mine = (value.get("format"), value.get("command"), value.get("purpose"))
        files = value.get("files")
        if mine != (_FORMAT, self._command, self._purpose) or not isinstance(files, dict):
            return {}
        return {
            name: marks
            for name, marks in files.items()
            if isinstance(marks, list) and ".." not in Path(name).parts and name[:1] != "/"
        }

    def _write(self, files: dict[str, list[str]]) -> None:
        value = {"command": self._command, "purpose": self._purpose, "files": files}
        write_json(self._record, {"format": _FORMAT, **value})


def records_of(folder: Path) -> Path:
    """Where the records and locks of a folder are.

    Raises:
        UserError: somebody has put a link there, through which files elsewhere would be written.
    """
    records = folder / RECORDS
    if records.is_symlink():
        raise UserError(f"{records}: is a link; remove it")
    return records


class OutputFile:
    """The product that is one file, for options such as `--out FILE`; checked at once.

    Args:
        path: the file.
        command: see `Product`.
        purpose: see `Product`.
        **given: `inputs` and `force` of `Product`.

    Raises:
        UserError: the file may not be replaced, or its folder not be written.
    """

    def __init__(self, path: Path, command: str, purpose: str, **given: Any):
        self.path = path
        self._product = Product(path.parent, command, purpose, **given)
        self._product.check(path.name)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """A file to write, which becomes `path` when the block ends."""
        with self._product.writing() as folder:
            yield folder / self.path.name


def fingerprint(path: Path) -> str:
    """What tells whether a file, or the names and sizes in a folder, are still the same."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            name = os.fsencode(file.relative_to(path))
            digest.update(b"%s\0%d\0" % (name, file.stat().st_size))
        return digest.hexdigest()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(b"%d\0" % size)
        if size <= _DIGESTED_BYTES:
            digest.update(file.read(_DIGESTED_BYTES))
        else:
            digest.update(file.read(_DIGESTED_BYTES // 2))
            file.seek(-(_DIGESTED_BYTES // 2), os.SEEK_END)
            digest.update(file.read(_DIGESTED_BYTES // 2))
    return digest.hexdigest()


def check_writable(folder: Path, names: Iterable[str] = ()) -> None:
    """Raises UserError unless files can be made in a folder, or in the one that it would go into.

    By making one: only that meets read-only mounts, quotas and what root may not do either.

    Args:
        folder: may not exist yet.
        names: of files that it is to hold.
    """
    existing = folder.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    try:
        new = folder.absolute().relative_to(existing)
        for part in {part for name in ("", *names) for part in (new / name).parts}:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (existing / part).lstat()  # the name may be too long
        probe = existing / f".maven_jax-{secrets.token_hex(4)}.tmp"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL, 0o666))
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from error


def _read_record(path: Path) -> dict[str, Any]:
    """A record; {} if there is none that can be read, so that nothing counts as written."""
    try:
        return read_json(path, "a record of outputs")
    except UserError:
        return {}
