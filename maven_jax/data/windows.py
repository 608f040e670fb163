"""Cuts videos into windows: which frames of which video each window covers."""

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
        stop: (n,) one past the last frame.
        step: (n,) distance between neighbouring frames of a window; 1 except for `dense` ones.
        length: frames of a window once padded; no window has more.
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
        """For each video, (num_frames,) the number of windows in which each frame lies."""
        counts = [np.zeros(entry.num_frames, np.int32) for entry in self.entries]
        for index in range(len(self)):
            counts[self.video[index]][self.frames(index)] += 1
        return counts

    def by_length(self, lengths: Sequence[int]) -> list[tuple[np.ndarray, Windows]]:
        """The windows grouped by the shortest length that holds them.

        Args:
            lengths: ascending; the last is `self.length`.

        Returns:
            For each length that has some: the numbers of its windows, and these windows, padded
            to it.
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
    """Lengths in frames to pad windows to where a model takes any; few, as each is compiled.

    Segments have all lengths; of the other kinds almost all windows are whole.

    >>> padded_lengths("segment", 300), padded_lengths("sliding", 300)
    ((75, 150, 300), (300,))
    """
    halved = (-(-length // 4), -(-length // 2)) if kind == "segment" else ()
    return tuple(sorted({*halved, length}))


def sliding_bounds(num_frames: int, length: int, hop: int) -> list[tuple[int, int]]:
    """(start, stop) of windows `hop` apart, the last flush with the end; a short video has one.

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
    """(start, stop) of each transcript segment and of each gap between two.

    Those longer than `length` are cut into pieces: every frame is in exactly one window.
    """
    return [
        (s, min(s + length, stop))
        for start, stop in entry.segments
        for s in range(start, stop, length)
    ]


def dense_bounds(num_frames: int, length: int, stride: int, hop: int) -> list[tuple[int, int]]:
    """(start, stop) of windows of `length` frames `stride` apart that begin `hop` frames apart.

    `stride` windows that begin one frame after the other fill a stretch of `length * stride`
    frames, each frame once; then the next stretch begins. At the end of the video windows are
    shorter. With hop 1 every frame is in exactly one window, as in RJCA (Praveen et al., 2023); a
    larger hop leaves out the frames between.

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
    """The number of frames that is nearest to `step_s` seconds, at least one."""
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
            frames `step_s` apart. Every frame lies in at least one window; in exactly one for
            `segment`, and for `dense` at hop 1.
        length: frames of a window.
        hop: frames between the first frames of neighbouring windows (not used for `segment`).
            Above 1, `dense` windows leave frames out, which is for training only.
        step_s: seconds between the frames of a `dense` window; None for the other kinds.
        annotated: leave out videos without an annotated frame, of which training learns nothing.

    Raises:
        UserError: impossible sizes, or nothing to cut.
    """
    _check_sizes(kind, length, hop, step_s)
    videos = tuple(e for e in entries if not annotated or e.num_annotated)
    rows: list[tuple[int, int, int, int]] = []
    for i, entry in enumerate(videos):
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
    return Windows(videos, video, start, stop, stride, length)


def _check_sizes(kind: str, length: int, hop: int, step_s: float | int | None) -> None:
    if kind not in KINDS:
        raise UserError(f"config.data.window.kind={kind!r}: expected one of {', '.join(KINDS)}")
    if kind == "dense":
        if step_s is None or not 0 < step_s < float("inf"):
            raise UserError(
                f"config.data.window.step_s={step_s}: dense windows need the seconds between frames"
            )
        if length < 1 or hop < 1:
            raise UserError(f"windows of length {length} at hop {hop}: both must be at least 1")
        return
    if step_s is not None:
        raise UserError(
            f"config.data.window.step_s={step_s}: only dense windows have it, {kind} ones need None"
        )
    if length < 1 or not 1 <= hop <= length:
        raise UserError(
            f"windows of length {length} at hop {hop}: expected 1 <= hop <= length, so that every "
            "frame is covered"
        )
