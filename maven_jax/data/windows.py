"""Cutting videos into windows: which frames of which video each window covers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from maven_jax.data.store import VideoEntry
from maven_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Windows:
    """A table of windows; every frame of every video lies in at least one of them.

    Attributes:
        entries: the videos.
        video: (n,) index into `entries`.
        start: (n,) first frame.
        stop: (n,) frame behind the last one; `stop - start <= length`.
        length: frames of a window once padded.
    """

    entries: tuple[VideoEntry, ...]
    video: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    length: int

    def __len__(self) -> int:
        return len(self.start)


def sliding_bounds(num_frames: int, length: int, hop: int) -> list[tuple[int, int]]:
    """Windows `hop` apart, the last one flush with the end; one short window if all fits in it.

    >>> sliding_bounds(700, 300, 200)
    [(0, 300), (200, 500), (400, 700)]
    >>> sliding_bounds(120, 300, 200)
    [(0, 120)]
    """
    if num_frames <= length:
        return [(0, num_frames)]
    starts = list(range(0, num_frames - length + 1, hop))
    if starts[-1] + length < num_frames:
        starts.append(num_frames - length)
    return [(s, s + length) for s in starts]


def segment_bounds(entry: VideoEntry, length: int) -> list[tuple[int, int]]:
    """One window for each transcript segment, and for each gap between two of them.

    Those longer than `length` are cut into pieces, so that every frame is in exactly one window.
    """
    return [
        (s, min(s + length, stop))
        for start, stop in entry.segments
        for s in range(start, stop, length)
    ]


def make_windows(
    entries: Sequence[VideoEntry], *, kind: str, length: int, hop: int, annotated: bool = False
) -> Windows:
    """The windows of some videos.

    Args:
        entries: the videos, in order.
        kind: `sliding`, or `segment` for one window per transcript segment.
        length: frames of a window.
        hop: frames between the starts of sliding windows.
        annotated: leave out videos in which no frame is annotated (training learns nothing there).

    Raises:
        UserError: impossible sizes, or nothing to cut.
    """
    if length < 1 or not 1 <= hop <= length:
        raise UserError(
            f"windows of length {length} at hop {hop}: 1 <= hop <= length is wanted, so that "
            "every frame is covered"
        )
    if kind not in ("sliding", "segment"):
        raise UserError(f"config.data.window.kind={kind!r}: sliding or segment is wanted")
    kept = tuple(e for e in entries if not annotated or e.num_annotated)
    rows: list[tuple[int, int, int]] = []
    for i, entry in enumerate(kept):
        if kind == "sliding":
            bounds = sliding_bounds(entry.num_frames, length, hop)
        else:
            bounds = segment_bounds(entry, length)
        rows += [(i, start, stop) for start, stop in bounds]
    if not rows:
        raise UserError("no windows: the split has no (annotated) videos")
    table = np.array(rows, np.int64)
    return Windows(kept, table[:, 0], table[:, 1], table[:, 2], length)
