"""Features of any rate, and words, brought to the timestamps of the video frames.

Everything here is NumPy and works on streams: a feature stream is read no further than the given
frames need, and only its newest part stays in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Two times computed in different ways count as equal within this.
EPSILON_S = 1e-6


def interpolate(
    times_s: np.ndarray, values: np.ndarray, at_s: np.ndarray, step_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation of samples; nothing is invented beyond their ends.

    Args:
        times_s: (n,) increasing times of the samples, seconds.
        values: (n, c) float32.
        at_s: (t,) times to interpolate at, seconds.
        step_s: distance of two samples; the first and last value hold up to so long beyond the
            ends. A sample's time is the centre of what it was computed from, so the first of HuBERT
            lies at 12.5 ms, more than half a step behind the frame at 0.

    Returns:
        (t, c) float32, zero where masked, and the mask (t,): False outside the samples.
    """
    out = np.zeros((len(at_s), values.shape[1]), np.float32)
    mask = np.zeros(len(at_s), bool)
    if len(times_s) == 0 or len(at_s) == 0:
        return out, mask
    reach = step_s + EPSILON_S
    mask = (at_s >= times_s[0] - reach) & (at_s <= times_s[-1] + reach)
    right = np.clip(np.searchsorted(times_s, at_s, side="right"), 1, max(len(times_s) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times_s) - 1)
    gap = np.maximum(times_s[right] - times_s[left], 1e-12)
    weight = np.clip((at_s - times_s[left]) / gap, 0.0, 1.0).astype(np.float32)[:, None]
    mixed = values[left] * (1 - weight) + values[right] * weight
    out[mask] = mixed[mask]
    return out, mask


class AlignedStream:
    """A feature stream read at increasing times.

    Attributes:
        dim: number of channels c.
    """

    def __init__(
        self, blocks: Iterable[tuple[np.ndarray, np.ndarray]], *, dim: int, step_s: float
    ) -> None:
        """Starts at the beginning of a stream; reads nothing yet.

        Args:
            blocks: pairs (times_s (n,), values (n, dim)), times increasing over all blocks.
            dim: number of channels.
            step_s: distance of two samples, seconds.
        """
        self.dim = dim
        self._step_s = step_s
        self._blocks = iter(blocks)
        self._times = np.zeros(0)
        self._values = np.zeros((0, dim), np.float32)
        self._ended = False

    def at(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values (t, dim) and mask (t,) at `times_s`, none earlier than in the call before."""
        if len(times_s) == 0:
            return np.zeros((0, self.dim), np.float32), np.zeros(0, bool)
        self._read_until(float(times_s[-1]))
        result = interpolate(self._times, self._values, times_s, self._step_s)
        # Of what lies before the last time, only its left neighbour is needed again.
        first = max(int(np.searchsorted(self._times, times_s[-1], side="right")) - 1, 0)
        self._times, self._values = self._times[first:], self._values[first:]
        return result

    def _read_until(self, time_s: float) -> None:
        times, values = [self._times], [self._values]
        last = self._times[-1] if len(self._times) else -np.inf
        while not self._ended and last <= time_s:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
            elif len(block[0]):
                times.append(np.asarray(block[0], np.float64))
                values.append(np.asarray(block[1], np.float32))
                last = times[-1][-1]
        if len(times) > 1:
            self._times, self._values = np.concatenate(times), np.concatenate(values)


def overlapping(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Start and stop of the fewest pieces of at most `size` that cover `length`, in order.

    Each starts `size - overlap` behind the one before. Only the last one may be shorter than
    `size`; it is longer than `overlap`. No pieces for `length` 0.
    """
    if not 0 <= 2 * overlap <= size or size < 1:
        raise ValueError(f"overlap {overlap} must be at most half of the size {size}")
    if length <= 0:
        return []
    hop = size - overlap
    count = 1 + max(0, -(-(length - size) // hop))
    return [(i * hop, min(i * hop + size, length)) for i in range(count)]


def crossfade(
    pieces: Iterable[tuple[int, np.ndarray]],
) -> Iterator[tuple[int, np.ndarray]]:
    """Joins overlapping pieces by a linear cross-fade where two of them overlap.

    Args:
        pieces: pairs (start index, values (n, c)) in order; each overlaps the one before or
            follows it directly, and no place belongs to more than two.

    Yields:
        (start index, values): consecutive, without overlap, each as soon as it is final.
    """
    start: int = 0
    pending: np.ndarray | None = None
    for next_start, values in pieces:
        if pending is None:
            start, pending = next_start, values
            continue
        final = next_start - start
        n = len(pending) - final
        if final < 0 or n < 0 or n > len(values):
            raise ValueError(f"piece at {next_start} does not continue the one at {start}")
        # Neither end of the fade is 0 or 1: both pieces count in every frame of the overlap.
        weight = (np.arange(1, n + 1, dtype=np.float32) / (n + 1))[:, None]
        faded = pending[final:] * (1 - weight) + values[:n] * weight
        if final:
            yield start, pending[:final]
        start, pending = next_start, np.concatenate([faded, values[n:]])
    if pending is not None and len(pending):
        yield start, pending


def spread_words(words: Sequence[str], start_s: float | int, end_s: float | int) -> np.ndarray:
    """Times for the words of a segment that has no word times, proportional to their lengths.

    Returns:
        (n, 2) start and end of every word in seconds; they fill the segment without gaps.
    """
    lengths = np.array([max(len(word), 1) for word in words], np.float64)
    borders = np.concatenate([[0.0], np.cumsum(lengths)]) / max(lengths.sum(), 1.0)
    borders = start_s + borders * (end_s - start_s)
    return np.stack([borders[:-1], borders[1:]], axis=1)


def segment_ids(starts_s: np.ndarray, ends_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """The index of the transcript segment at every time, -1 for none.

    A segment lasts for `start <= t < end`. Where segments overlap, the one that started last counts
    (of several that start together, the last in order); when it ends, the earlier one goes on.

    Args:
        starts_s: (k,) seconds, any order.
        ends_s: (k,) seconds.
        at_s: (t,) increasing seconds.

    Returns:
        (t,) int32.
    """
    ids = np.full(len(at_s), -1, np.int32)
    for index in np.argsort(starts_s, kind="stable"):
        first, stop = np.searchsorted(
            at_s, [starts_s[index] - EPSILON_S, ends_s[index] - EPSILON_S], side="left"
        )
        ids[first:stop] = index
    return ids
