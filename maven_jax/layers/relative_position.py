"""Which positions share a bias of attention: exact nearby, ever wider further away."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Array, Float, Int


def relative_positions(num_frames: int) -> Int[np.ndarray, "t t"]:
    """How far each frame (second axis) lies behind each other one (first axis)."""
    frames = np.arange(num_frames)
    return frames[None, :] - frames[:, None]


def position_buckets(
    num_frames: int, num_buckets: int, max_distance: int
) -> Int[np.ndarray, "t t"]:
    """Rows of a table of position biases, as T5 has them (Raffel et al., 2020, section 2.1).

    Args:
        num_frames: frames or tokens.
        num_buckets: rows of the table; half of them for what lies behind.
        max_distance: from which on all share one row.
    """
    offset = relative_positions(num_frames)
    half = num_buckets // 2
    exact = half // 2
    distance = np.abs(offset)
    log = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    wide = exact + (log / np.float32(math.log(max_distance / exact)) * (half - exact)).astype(int)
    return (offset > 0) * half + np.where(distance < exact, distance, np.minimum(wide, half - 1))


def position_bias(
    table: Float[Array, "buckets h"], num_frames: int, max_distance: int
) -> Float[Array, "h t t"]:
    """The bias of every pair of frames; see `position_buckets`."""
    return table[position_buckets(num_frames, table.shape[0], max_distance)].transpose(2, 0, 1)
