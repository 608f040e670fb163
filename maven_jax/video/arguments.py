"""What callers of a predictor may give, brought to one form; anything else is a UserError."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import as_widths
from maven_jax.media.track_faces import check_choice


def as_path(value: Any, name: str) -> Path | None:
    """A path of any kind; None stays None."""
    try:
        return None if value is None else Path(value)
    except TypeError:
        raise UserError(f"{name}={value!r}: expected a path") from None


def as_face(value: str | SupportsIndex) -> str:
    """Which face as `track_faces.choose` takes it; a number may be any integer."""
    if not isinstance(value, str):
        try:
            value = str(_integer(value))
        except TypeError:
            raise UserError(f"face={value!r}: expected a word or a face's number") from None
    check_choice(value)
    return value


def as_fps(value: SupportsFloat | None) -> float | None:
    """A rate of frames; None stays None."""
    if value is None:
        return None
    try:
        fps = float(value)
    except (TypeError, ValueError):
        fps = math.nan
    if not 0 < fps < math.inf:
        raise UserError(f"fps={value!r}: expected a number of frames per second above 0")
    return fps


def as_span(
    start_s: SupportsFloat | None, end_s: SupportsFloat | None
) -> tuple[float | None, float | None]:
    """From when to when, in seconds; None stays None."""
    seconds: list[float | None] = []
    for name, value in (("start_s", start_s), ("end_s", end_s)):
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if number is not None and not 0 <= number < math.inf:
            raise UserError(f"{name}={value!r}: expected a number of seconds, at least 0")
        seconds.append(number)
    return seconds[0], seconds[1]


def as_smooth(value: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, int]:
    """Widths of the box filters of valence and arousal; one number is that of both."""
    try:
        numbers = [_integer(n) for n in value] if isinstance(value, Sequence) else [_integer(value)]
    except TypeError:
        numbers = []
    return as_widths(numbers * 2 if len(numbers) == 1 else numbers or value, "smooth")


def as_workers(value: SupportsIndex | None, default: int) -> int:
    """A number of threads."""
    try:
        workers = default if value is None else _integer(value)
    except TypeError:
        workers = 0
    if workers < 1:
        raise UserError(f"workers={value!r}: expected a number of threads, at least 1")
    return workers


def _integer(value: Any) -> int:
    """Any integer but True and False; raises TypeError."""
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)
