"""What is wrong with a corpus or a file, in one form: file, place, message, severity."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from maven_jax import errors
from maven_jax.errors import UserError

UNUSABLE, REPAIRED, NOTE = "unusable", "repaired", "note"


def printable(text: str, limit: int = 80) -> str:
    """`text` as one short line: control characters escaped, long text cut in the middle."""
    line = errors.printable(text)
    return line if len(line) <= limit else f"{line[: limit - 21]}…{line[-20:]}"


class InputError(UserError):
    """A file that cannot be used; the message reads `file: place: what is wrong`.

    Attributes:
        path: the file.
        place: where in it (`line 17`), "" for the file as a whole.
        message: what is wrong, without file and place.
    """

    def __init__(self, path: Path, place: str, message: str):
        self.path, self.place, self.message = Path(path), place, message
        super().__init__(": ".join(filter(None, (printable(str(path), 300), place, message))))

    def __reduce__(self):
        # Raised in worker processes: the default would rebuild it from the message alone.
        return InputError, (self.path, self.place, self.message)


@dataclass(frozen=True)
class Fix:
    """Something odd in a file that a rule handles.

    Attributes:
        severity: "repaired" or "note".
        place: where in the file, "" for the file as a whole.
        message: what is odd and what was done about it.
    """

    severity: str
    place: str
    message: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a corpus.

    Attributes:
        severity: "unusable" (the video cannot be prepared), "repaired" (a rule handles it, and it
            is counted) or "note".
        file: path relative to the corpus's root (as given for a list outside of it).
        place: where in the file (`line 17`), "" for the file as a whole.
        message: what is wrong, in one line.
        video: the video that it belongs to, "" if none.
    """

    severity: str
    file: str
    place: str
    message: str
    video: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.place, self.message)))


def relative(path: Path, root: Path) -> str:
    """`path` below `root` in printable form; as it is when it lies elsewhere."""
    path = Path(path)
    return printable(
        path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path), 300
    )


def from_error(error: InputError, root: Path, video: str, severity: str = UNUSABLE) -> Problem:
    """The problem that `error` reports."""
    return Problem(severity, relative(error.path, root), error.place, error.message, video)


def from_fixes(fixes: list[Fix], path: Path, root: Path, video: str) -> list[Problem]:
    """The problems that were handled while `path` was read."""
    file = relative(path, root)
    return [Problem(f.severity, file, f.place, f.message, video) for f in fixes]


def check_file(path: Path) -> int:
    """The size in bytes of a regular file, which can be opened without waiting for anybody.

    Raises:
        InputError: there is no such file, or it is a folder, a pipe, a socket or a device.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise InputError(path, "", "no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(path, "", f"cannot be read: {reason}") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(path, "", "a folder; expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(path, "", "a pipe, a socket or a device; expected a file")
    return status.st_size


def read_bytes(path: Path, max_bytes: int, what: str) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        max_bytes: larger files are refused before they are read.
        what: what the file should be, for the messages.

    Raises:
        InputError: the file is none, cannot be read or is too large.
    """
    size = check_file(path)
    if size > max_bytes:
        raise InputError(path, "", f"{size:,} bytes are too many for {what}")
    try:
        with open(path, "rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise InputError(path, "", f"cannot be read: {error.strerror or error}") from None


# Encodings that begin with a mark of their own; UTF-32 first, whose mark begins as UTF-16's does.
_MARKED = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def _decoded(path: Path, data: bytes) -> tuple[str, list[Fix]]:
    """The text by the encoding that its first bytes tell, else UTF-8; a note on such bytes."""
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        fixes = [Fix(NOTE, "line 1", "byte order mark (BOM) ignored")]
    else:
        encoding = next((name for mark, name in _MARKED if data.startswith(mark)), None)
        if encoding is not None:
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError as error:
                raise InputError(path, "", f"damaged {encoding.upper()}: {error.reason}") from None
            return text, [Fix(NOTE, "line 1", f"read as {encoding.upper()}, by its BOM")]
        fixes = []
    wide = next((e for e, zero in (("utf-16le", 1), ("utf-16be", 0)) if _is_wide(data, zero)), "")
    if wide:
        cure = f"iconv -f {wide} -t utf-8 OLD > NEW"
        raise InputError(path, "", f"not UTF-8 text but {wide.upper()}; convert it: {cure}")
    try:
        return data.decode("utf-8"), fixes
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        value = f"byte 0x{data[error.start]:02x} is not UTF-8 text"
        cure = "iconv -f cp1252 -t utf-8 OLD > NEW, if it is Western European"
        raise InputError(path, f"line {line}", f"{value}; convert it ({cure})") from None


def _is_wide(data: bytes, zero: int) -> bool:
    """Whether every other one of the first bytes is 0, as in UTF-16 of Latin letters."""
    return len(data) >= 8 and data[zero:8:2] == bytes(4) and 0 not in data[1 - zero : 8 : 2]


def read_text(path: Path, max_bytes: int, what: str) -> tuple[str, list[Fix]]:
    r"""A small text file with `\n` line ends: UTF-8, or what its byte order mark tells.

    Args:
        path: the file.
        max_bytes: larger files are refused before they are read.
        what: what the file should be, for the messages.

    Returns:
        The text, and what was mended (byte order mark, Windows or old Macintosh line ends).

    Raises:
        InputError: the file cannot be read, is too large or is not UTF-8 (names the line).
    """
    text, fixes = _decoded(path, read_bytes(path, max_bytes, what))
    if "\r\n" in text:
        line = text.count("\n", 0, text.index("\r\n")) + 1
        fixes.append(Fix(NOTE, f"line {line}", "Windows line ends (CRLF) ignored"))
        text = text.replace("\r\n", "\n")
    elif "\r" in text and "\n" not in text:
        fixes.append(Fix(NOTE, "line 1", "Macintosh line ends (CR) ignored"))
        text = text.replace("\r", "\n")
    return text, fixes
