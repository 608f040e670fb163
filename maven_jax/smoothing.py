"""Smoothing of predicted tracks: the box filter that RJCA and its relatives end with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from maven_jax.errors import UserError


def check_smooth_frames(frames: tuple[int, int]) -> None:
    """Raises UserError unless these are two numbers of frames (valence, arousal), 0 for none."""
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in frames)
    if len(frames) != 2 or not whole:
        raise UserError(
            f"config.eval.smooth_frames={tuple(frames)}: two numbers of frames are wanted, of the "
            "box filters for valence and arousal; 0 for none"
        )


def box_filter(track: Float32[np.ndarray, "n 2"], frames: tuple[int, int]) -> np.ndarray:
    """The moving average of each column; the average is over the frames that exist.

    Frame i becomes the mean of the N frames from i - N // 2 on: an even N takes one more frame from
    before than from behind, as in RJCA's released code (whose filter, though, counts zeros beyond
    the ends, so that tracks fade towards 0 there).

    Args:
        track: valence and arousal of every frame of a video.
        frames: N for valence and for arousal; 0 and 1 leave a column as it is. RJCA: 20 and 50.

    Returns:
        (n, 2) float32; of values in [-1, 1] again in [-1, 1].
    """
    out = track.copy()
    n = len(track)
    for column, width in enumerate(frames):
        if width < 2:
            continue
        # Float64 sums: over hours of video their error stays far below what float32 resolves.
        sums = np.concatenate([[0.0], np.cumsum(track[:, column], dtype=np.float64)])
        first = np.arange(n) - width // 2
        low, high = np.maximum(first, 0), np.minimum(first + width, n)
        out[:, column] = (sums[high] - sums[low]) / (high - low)
    return out
