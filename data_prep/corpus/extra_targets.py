"""A corpus's annotations of other targets, beside those of valence and arousal.

    annotations/EXPR_…/{Train_Set,Validation_Set}/<video>.txt    a header of names, a number a frame
    annotations/AU_…/{Train_Set,Validation_Set}/<video>.txt      a header of AU1,AU2,…, 0 and 1
    annotations/dominance/{Train_Set,Validation_Set}/<video>.txt the header dominance, and a frame's
                                                                 rating in [-1, 1]

The first two are Aff-Wild2's, where -1 is not annotated; of action units one may be, or all of a
frame. The third, of which liking and trustworthiness are too, is what `maven-jax corpus` writes of
ratings; -5 is not annotated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from maven_jax.files import write_file
from maven_jax.media.annotations import NOT_ANNOTATED, rating_of
from maven_jax.media.problems import InputError, printable, read_text
from maven_jax.store.schema import ExtraTarget, TargetKind

EXPRESSIONS, ACTION_UNITS = "expr", "au"
# What people rate beside valence and arousal.
EXTRA_DIMENSIONS = ("dominance", "liking", "trustworthiness")
KINDS: dict[str, TargetKind] = {
    EXPRESSIONS: "classes",
    ACTION_UNITS: "binary",
    **dict.fromkeys(EXTRA_DIMENSIONS, "continuous"),
}
# How the folders of a target's annotations begin, in lower case.
FOLDERS = {EXPRESSIONS: "expr", ACTION_UNITS: "au_", **{d: d for d in EXTRA_DIMENSIONS}}
_MAX_BYTES = 64 << 20
_MOST_LABELS, _LONGEST_LABEL = 100, 60


def read_extra(path: Path, name: str) -> tuple[ExtraTarget, Float32[np.ndarray, "n w"]]:
    """A target and its values as `types.Batch` has them, NaN in frames without annotation.

    Args:
        path: the file of a video.
        name: of `KINDS`.

    Raises:
        InputError: names the first faulty line.
    """
    text, _ = read_text(path, _MAX_BYTES, "an annotation")
    lines = text.rstrip().split("\n")
    labels = tuple(part.strip() for part in lines[0].split(","))
    if name in EXTRA_DIMENSIONS:
        return dimension_target(name), _read_ratings(path, name, lines)
    if not 1 < len(labels) <= _MOST_LABELS or not all(map(_is_name, labels)):
        message = f"expected a header of labels, found {printable(lines[0], 40)!r}"
        raise InputError(path, "line 1", message)
    target = ExtraTarget(name, KINDS[name], labels)
    highest = len(labels) - 1 if target.kind == "classes" else 1
    values = np.empty((len(lines) - 1, target.width), np.float32)
    for i, line in enumerate(lines[1:]):
        row = _row(line, target.width, highest)
        if row is None:
            what = f"{target.width} whole numbers from -1 to {highest}"
            message = f"expected {what}, found {printable(line, 40)!r}"
            raise InputError(path, f"line {i + 2}", message)
        values[i] = row
    values[(values < 0).all(axis=1)] = np.nan
    return target, values


def dimension_target(dimension: str) -> ExtraTarget:
    """One of `EXTRA_DIMENSIONS` as a target."""
    return ExtraTarget(dimension, "continuous", (dimension,))


def _read_ratings(path: Path, name: str, lines: list[str]) -> Float32[np.ndarray, "n 1"]:
    """Of the lines of a file: ratings, NaN where there is none."""
    if lines[0].strip() != name:
        message = f"expected the header {name}, found {printable(lines[0], 40)!r}"
        raise InputError(path, "line 1", message)
    values = np.empty((len(lines) - 1, 1), np.float32)
    for i, line in enumerate(lines[1:]):
        value = rating_of(line.strip())
        if isinstance(value, str):
            raise InputError(path, f"line {i + 2}", value)
        values[i] = value
    return np.where(values == NOT_ANNOTATED, np.float32(np.nan), values)


def write_ratings(path: Path, dimension: str, values: Float[np.ndarray, "n"]) -> None:
    """Writes ratings of one of `EXTRA_DIMENSIONS`, -5 for none; the file is whole or absent."""
    rows = (f"{v:.6f}" if v != NOT_ANNOTATED else f"{NOT_ANNOTATED:g}" for v in values.tolist())
    write_file(path, ("\n".join([dimension, *rows]) + "\n").encode())


def _is_name(text: str) -> bool:
    fits = 0 < len(text) <= _LONGEST_LABEL and text.isprintable()
    return fits and not text.lstrip("+-").replace(".", "").isdigit()


def _row(line: str, width: int, highest: int) -> list[int] | None:
    """A line's numbers; None if it is none of theirs."""
    cells = [cell.strip() for cell in line.split(",")]
    try:
        row = [int(float(cell)) for cell in cells]
        exact = all(float(cell) == number for cell, number in zip(cells, row))
    except (ValueError, OverflowError):
        return None
    fits = all(-1 <= number <= highest for number in row)
    return row if exact and fits and len(row) == width else None


def fitted(values: Float32[np.ndarray, "n w"], frames: int) -> Float32[np.ndarray, "m w"]:
    """Values for so many frames: those beyond are left out, those that lack are not annotated."""
    missing = max(frames - len(values), 0)
    return np.pad(values[:frames], ((0, missing), (0, 0)), constant_values=np.nan)


def extra_frames(
    values: Float32[np.ndarray, "n w"] | None, target: ExtraTarget, frames: slice
) -> tuple[Float32[np.ndarray, "m w"], Bool[np.ndarray, "m"]]:
    """Some frames of a target as a store takes them: values, and where there are any.

    Args:
        values: of the whole video, NaN in frames without annotation; None if there are none.
        target: whose they are.
        frames: which ones, from a start to a stop.
    """
    if values is None:
        count = frames.stop - frames.start
        return np.zeros((count, target.width), np.float32), np.zeros(count, bool)
    own = values[frames]
    mask = np.asarray(np.isfinite(own).all(axis=1))
    return np.where(mask[:, None], own, 0).astype(np.float32), mask


def settled(targets: Iterable[ExtraTarget]) -> dict[str, ExtraTarget]:
    """Name -> the target that most videos have: all files of a corpus have the same header."""
    counts = Counter(targets)
    by_name: dict[str, ExtraTarget] = {}
    for target, _ in counts.most_common():
        by_name.setdefault(target.name, target)
    return {name: by_name[name] for name in (*KINDS, *by_name) if name in by_name}
