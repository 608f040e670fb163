"""Cutting videos into windows: which frames of which video each window covers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from maven_jax.errors import UserError
from maven_jax.store.schema import VideoEntry

KINDS = ("sliding", "segment", "dense")


@dataclasses.dataclass(frozen=True)
class Windows:
    """A table of windows; see `make_windows` for which frames they cover.

    Attributes:
        entries: the videos.
        video: (n,) index into `entries`.
        start: (n,) first frame.
        stop: (n,) frame behind the last one.
        step: (n,) frames from one of a window's frames to its next; 1 but for `dense` windows.
            No window has more than `length` frames.
        length: frames of a window once padded.
    """

    entries: tuple[VideoEntry, ...]
    video: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    step: np.ndarray
    length: int

    def __len__(self) -> int:
        return len(self.start)

    def frames(self, index: int) -> slice:
        """The frames of a window within its video."""
        return slice(int(self.start[index]), int(self.stop[index]), int(self.step[index]))

    def coverage(self) -> list[np.ndarray]:
        """For each video, in how many windows each of its frames lies."""
        counts = [np.zeros(entry.num_frames, np.int32) for entry in self.entries]
        for index in range(len(self)):
            counts[self.video[index]][self.frames(index)] += 1
        return counts

    def by_length(self, lengths: Sequence[int]) -> list[tuple[np.ndarray, Windows]]:
        """The windows dealt out to the lengths that they are padded to.

        Args:
            lengths: ascending; the last is `self.length`.

        Returns:
            For each length that is the shortest for some windows: their numbers, and these
            windows, padded to it.
        """
        frames = -(-(self.stop - self.start) // self.step)
        parts = []
        for shorter, length in zip((0, *lengths), lengths):
            numbers = np.flatnonzero((frames > shorter) & (frames <= length))
            if len(numbers):
                table = {f: getattr(self, f)[numbers] for f in ("video", "start", "stop", "step")}
                parts.append((numbers, dataclasses.replace(self, length=length, **table)))
        return parts


def padded_lengths(kind: str, length: int) -> tuple[int, ...]:
    """Frames to which windows are padded where a model takes any number; few, as each is compiled.

    Segments are of all lengths. Of the other kinds, almost all windows are whole.

    >>> padded_lengths("segment", 300), padded_lengths("sliding", 300)
    ((75, 150, 300), (300,))
    """
    halved = (-(-length // 4), -(-length // 2)) if kind == "segment" else ()
    return tuple(sorted({*halved, length}))


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


def dense_bounds(num_frames: int, length: int, stride: int, hop: int) -> list[tuple[int, int]]:
    """Windows of `length` frames `stride` apart, whose first frames lie `hop` apart.

    Windows that begin one frame after the other fill a stretch of `length * stride` frames without
    a frame twice; then the next stretch begins. At the end of the video they are shorter. With
    hop 1 every frame is in exactly one window (RJCA (Praveen et al., 2023): windows slide by one
    frame and every frame is predicted once); a larger hop leaves the frames between out.

    >>> dense_bounds(10, length=2, stride=3, hop=1)
    [(0, 4), (1, 5), (2, 6), (6, 10), (7, 8), (8, 9)]
    """
    bounds = []
    for stretch in range(0, num_frames, length * stride):
        for start in range(stretch, min(stretch + stride, num_frames), hop):
            count = min(length, -(-(num_frames - start) // stride))
            bounds.append((start, start + (count - 1) * stride + 1))
    return bounds


def dense_stride(fps: float | int, step_s: float | int) -> int:
    """Frames that come nearest to `step_s` seconds, at least one."""
    return max(1, round(step_s * fps))


def make_windows(
    entries: Sequence[VideoEntry],
    *,
    kind: str,
    length: int,
    hop: int,
    step_s: float | int | None,
    annotated: bool = False,
) -> Windows:
    """The windows of some videos.

    Args:
        entries: the videos, in order.
        kind: `sliding`; `segment` for one window per transcript segment; `dense` for windows of
            frames that lie `step_s` apart. Every frame lies in at least one window, in exactly
            one of `segment` and of `dense` windows at hop 1.
        length: frames of a window.
        hop: frames between the first frames of neighbouring windows (not of `segment`). Above 1
            `dense` windows leave frames out, which is for training.
        step_s: seconds between the frames of a `dense` window; None for the other kinds.
        annotated: leave out videos in which no frame is annotated (training learns nothing there).

    Raises:
        UserError: impossible sizes, or nothing to cut.
    """
    _check_sizes(kind, length, hop, step_s)
    kept = tuple(e for e in entries if not annotated or e.num_annotated)
    rows: list[tuple[int, int, int, int]] = []
    for i, entry in enumerate(kept):
        step = 1
        if kind == "sliding":
            bounds = sliding_bounds(entry.num_frames, length, hop)
        elif kind == "segment":
            bounds = segment_bounds(entry, length)
        else:
            assert step_s is not None
            step = dense_stride(entry.fps, step_s)
            bounds = dense_bounds(entry.num_frames, length, step, hop)
        rows += [(i, start, stop, step) for start, stop in bounds]
    if not rows:
        raise UserError("no windows: the split has no (annotated) videos")
    table = np.array(rows, np.int64)
    video, start, stop, stride = table.T
    return Windows(kept, video, start, stop, stride, length)


def _check_sizes(kind: str, length: int, hop: int, step_s: float | int | None) -> None:
    if kind not in KINDS:
        raise UserError(f"config.data.window.kind={kind!r}: one of {', '.join(KINDS)} is wanted")
    if kind == "dense":
        if step_s is None or not 0 < step_s < float("inf"):
            raise UserError(
                f"config.data.window.step_s={step_s}: dense windows want the seconds between frames"
            )
        if length < 1 or hop < 1:
            raise UserError(f"windows of length {length} at hop {hop}: both must be at least 1")
        return
    if step_s is not None:
        raise UserError(
            f"config.data.window.step_s={step_s}: only dense windows have it, {kind} ones want None"
        )
    if length < 1 or not 1 <= hop <= length:
        raise UserError(
            f"windows of length {length} at hop {hop}: 1 <= hop <= length is wanted, so that "
            "every frame is covered"
        )
