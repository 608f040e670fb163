"""Aff-Wild2's valence/arousal annotation files: one row per frame, the first row a header."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from maven_jax.files import write_file
from maven_jax.media.problems import NOTE, Fix, InputError, printable, read_text

HEADER = ("valence", "arousal")
NOT_ANNOTATED = -5.0
# An hour at 60 fps is 216,000 lines of about 20 bytes.
MAX_BYTES = 64 << 20
# float() would also take `1_0`, `infinity` and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)


@dataclass(frozen=True)
class Annotation:
    """The annotation of one video.

    Attributes:
        values: (n, 2) valence and arousal in [-1, 1]; 0 where `valid` is False.
        valid: (n,) False for frames that are not annotated (-5 in either column).
        fixes: what was mended while reading.
    """

    values: Float[np.ndarray, "n 2"]
    valid: Bool[np.ndarray, "n"]
    fixes: list[Fix] = field(default_factory=list)


def rating_of(text: str) -> float | str:
    """A number in [-1, 1] or -5, or what is wrong with it."""
    if not _NUMBER.fullmatch(text):
        return f"{printable(text, 40)!r} is not a number" if text else "a value is missing"
    value = float(text)
    if value != NOT_ANNOTATED and not -1.0 <= value <= 1.0:
        return f"{printable(text, 40)} is outside [-1, 1] (and not -5, not annotated)"
    return value


def _row(line: str) -> tuple[float, float] | str:
    """One frame's values, or what is wrong with the line."""
    if not line:
        return "blank line between frames: no telling which frame it stands for"
    columns = line.split(",", 3)
    if len(columns) != 2:
        count = line.count(",") + 1
        return f"{count} column{'s' * (count > 1)} instead of 2: {printable(line, 40)!r}"
    valence, arousal = rating_of(columns[0].strip()), rating_of(columns[1].strip())
    if isinstance(valence, str):
        return valence
    return arousal if isinstance(arousal, str) else (valence, arousal)


def _check_header(path: Path, line: str) -> None:
    names = tuple(name.strip().lower() for name in line.split(",", 3))
    if names == HEADER:
        return
    if names == HEADER[::-1]:
        raise InputError(path, "line 1", "the columns are swapped: expected valence,arousal")
    if not isinstance(_row(line.strip()), str):
        # Read as it is, every frame would be one too early.
        raise InputError(
            path, "line 1", "the header valence,arousal is missing: the first line is a frame"
        )
    raise InputError(
        path, "line 1", f"expected the header valence,arousal, found {printable(line, 40)!r}"
    )


def read_annotation(path: Path) -> Annotation:
    """Reads `<video>.txt`: the header `valence,arousal`, then `v,a` for every frame.

    A byte order mark, Windows line ends, spaces around values and blank lines at the end are
    accepted and listed in `fixes`. Anything else is refused rather than guessed at, because a line
    too many or too few shifts every frame behind it.

    Returns:
        Values and validity of all n frames.

    Raises:
        InputError: (a UserError) names the file and the first faulty line, and counts the others.
    """
    path = Path(path)
    text, fixes = read_text(path, MAX_BYTES, "an annotation")
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(path, "", "empty: no header and no frames")
    _check_header(path, lines[0])
    if len(lines) == 1:
        raise InputError(path, "line 1", "no frames behind the header")
    values = np.zeros((len(lines) - 1, 2))
    faults: list[tuple[int, str]] = []
    spaced = 0
    for i, line in enumerate(lines[1:]):
        stripped = line.strip()
        spaced += stripped != line
        row = _row(stripped)
        if isinstance(row, str):
            faults.append((i + 2, row))
        else:
            values[i] = row
    if faults:
        number, message = faults[0]
        others = f" (and {len(faults) - 1} more lines)" if len(faults) > 1 else ""
        raise InputError(path, f"line {number}", message + others)
    if spaced or lines[0].strip() != lines[0]:
        fixes.append(Fix(NOTE, "", f"spaces around the lines ignored ({spaced} frames)"))
    valid = (values != NOT_ANNOTATED).all(axis=1)
    values[~valid] = 0.0
    return Annotation(values.astype(np.float32), valid, fixes)


def write_annotation(path: Path, values: Float[np.ndarray, "n 2"]) -> None:
    """Writes `values` as `read_annotation` reads them; rows of -5 are frames not annotated.

    The file is whole or absent.
    """
    rows = (
        f"{NOT_ANNOTATED:g},{NOT_ANNOTATED:g}" if v == NOT_ANNOTATED else f"{v:.6f},{a:.6f}"
        for v, a in np.asarray(values).tolist()
    )
    write_file(path, ("\n".join([",".join(HEADER), *rows]) + "\n").encode())
