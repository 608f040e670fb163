"""Mean and standard deviation of many rows, added in blocks and merged in any grouping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation (population, 1/N) over `count` frames; zeros if none."""

    count: int
    mean: Float64[np.ndarray, "c"]
    std: Float64[np.ndarray, "c"]


class RunningMoments:
    """Count, mean and sum of squares about the mean, merged by Chan's formula in float64.

    Sums of squares minus squared sums would lose the digits of a feature whose mean is large
    compared with its standard deviation.

    Attributes:
        count: rows so far.
        mean: (dim,) their mean.
        m2: (dim,) their sum of squares about the mean.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean = np.zeros(dim)
        self.m2 = np.zeros(dim)

    def add(self, values: np.ndarray) -> None:
        """Adds rows (n, dim)."""
        if len(values):
            values = values.astype(np.float64)
            mean = values.mean(axis=0)
            self._merge(len(values), mean, np.square(values - mean).sum(axis=0))

    def _merge(self, count: int, mean: np.ndarray, m2: np.ndarray) -> None:
        total = self.count + count
        if total == 0:
            return
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + np.square(delta) * (self.count * count / total)
        self.count = total

    def merge_json(self, moments: Mapping[str, Any]) -> None:
        """Adds the rows that another one was given, from its `to_json`."""
        self._merge(moments["count"], np.array(moments["mean"]), np.array(moments["m2"]))

    def to_json(self) -> dict[str, Any]:
        """For `merge_json`; JSON keeps every bit of a float64."""
        return {"count": self.count, "mean": self.mean.tolist(), "m2": self.m2.tolist()}

    def std(self) -> np.ndarray:
        """Population standard deviation of each column; zeros before the first row."""
        return np.sqrt(self.m2 / max(self.count, 1))

    def result(self) -> Moments:
        """The moments of the rows so far."""
        return Moments(self.count, self.mean.copy(), self.std())
