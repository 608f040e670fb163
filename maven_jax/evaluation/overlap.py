"""One value for each frame of a video from windows that overlap: their weighted mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32


class OverlapMean:
    """Sums the values that windows give a video's frames, in float64, in the order of the calls.

    Args:
        num_frames: of the video.
        blend: "mean" counts all windows alike; "centre" gives a window's frames weights that fall
            linearly from its middle to its ends, where a model sees one side only (as RAS does,
            ABAW10, 2026).
        shape: of one frame's value.
    """

    def __init__(self, num_frames: int, blend: str, shape: tuple[int, ...] = (2,)):
        self._centre = blend == "centre"
        self._total = np.zeros((num_frames, *shape), np.float64)
        self._weight = np.zeros(num_frames, np.float64)

    def add(self, frames: slice, values: Float[np.ndarray, "t ..."]) -> int:
        """Adds a window's values.

        Args:
            frames: of the video that lie in the window.
            values: of these frames, and of the padding behind them, which is left out.

        Returns:
            How many frames these are.
        """
        count = len(self._weight[frames])
        weights = np.ones(count)
        if self._centre:
            weights = 1 - np.abs((2 * np.arange(count) + 1) / count - 1)
        self._total[frames] += values[:count] * self._like_values(weights)
        self._weight[frames] += weights
        return count

    def _like_values(self, weights: np.ndarray) -> np.ndarray:
        return weights.reshape(-1, *(1,) * (self._total.ndim - 1))

    @property
    def uncovered(self) -> int | None:
        """The first frame that no window has covered; None if there is none."""
        return None if self._weight.all() else int(self._weight.argmin())

    def mean(self) -> Float32[np.ndarray, "n ..."]:
        """Each frame's mean over its windows; all frames have to be covered."""
        assert self._weight.all()
        return (self._total / self._like_values(self._weight)).astype(np.float32)
