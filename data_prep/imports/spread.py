"""Whether float16 holds a modality's values, or float32 is needed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maven_jax.store.moments import RunningMoments
from maven_jax.store.parts import MOST_SMALLER, SMALLEST_VALUE

# Rounding may add so much noise to a feature, as a share of its standard deviation.
MOST_NOISE = 0.01
# Deviation of the rounding error of float16 around a value x, as a share of |x|: steps of 2^-11 to
# 2^-10 of it, evenly spread over each.
_ROUNDING = 2.0**-10 / np.sqrt(12)
_BLOCK_ROWS = 4096


class Spread:
    """Sizes of a modality's values, file after file."""

    def __init__(self, dim: int):
        self._moments = RunningMoments(dim)
        self._largest = 0.0
        self._small = 0.0  # the largest share of values near 0 in a file

    def add(self, values: np.ndarray) -> None:
        """Adds the rows (n, dim) of a file; those that are not finite are left out."""
        nonzero = small = 0
        for rows in _blocks(values):
            size = np.abs(rows)
            self._largest = max(self._largest, float(size.max(initial=0.0)))
            nonzero += np.count_nonzero(size)
            small += np.count_nonzero((size > 0) & (size < SMALLEST_VALUE))
            self._moments.add(rows)
        self._small = max(self._small, small / max(nonzero, 1))

    def fault_of_float16(self) -> str:
        """Why float16 does not hold the values, "" if it does."""
        if self._largest > float(np.finfo(np.float16).max):
            return f"values up to {self._largest:.4g}"
        if self._small > MOST_SMALLER:
            return f"{self._small:.0%} of a file's values are below {SMALLEST_VALUE:.2g}"
        std = self._moments.std()
        noise = _ROUNDING * np.abs(self._moments.mean)
        coarse = np.flatnonzero((std > 0) & (noise > MOST_NOISE * std))
        if len(coarse):
            i = int(coarse[0])
            mean = f"a mean of {self._moments.mean[i]:.4g} with a deviation of {std[i]:.2g}"
            return f"{len(coarse)} features such as column {i} with {mean}"
        return ""


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(values), _BLOCK_ROWS):
        rows = np.asarray(values[start : start + _BLOCK_ROWS], np.float64)
        yield rows[np.isfinite(rows).all(axis=1)]
