"""One value for each frame of a video from windows that overlap: their mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32


class OverlapMean:
    """Sums the values that windows give a video's frames, in float64, in the order of the calls.

    Args:
        num_frames: of the video.
        shape: of one frame's value.
    """

    def __init__(self, num_frames: int, shape: tuple[int, ...] = (2,)):
        self._total = np.zeros((num_frames, *shape), np.float64)
        self._count = np.zeros(num_frames, np.int32)

    def add(self, frames: slice, values: Float[np.ndarray, "t ..."]) -> int:
        """Adds a window's values.

        Args:
            frames: of the video that lie in the window.
            values: of these frames, and of the padding behind them, which is left out.

        Returns:
            How many frames these are.
        """
        count = len(self._count[frames])
        self._total[frames] += values[:count]
        self._count[frames] += 1
        return count

    @property
    def uncovered(self) -> int | None:
        """The first frame that no window has covered; None if there is none."""
        return None if self._count.all() else int(self._count.argmin())

    def mean(self) -> Float32[np.ndarray, "n ..."]:
        """Each frame's mean over its windows; all frames have to be covered."""
        assert self._count.all()
        counts = self._count.reshape(-1, *(1,) * (self._total.ndim - 1))
        return (self._total / counts).astype(np.float32)
