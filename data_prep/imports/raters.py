"""Several people's ratings as one, on one scale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.corpus.extra_targets import EXTRA_DIMENSIONS
from maven_jax.errors import UserError

RULES = ("mean", "ewe")
# Those beside valence and arousal are kept as extra targets, as far as they are there.
RATED = ("valence", "arousal", *EXTRA_DIMENSIONS)


@dataclass(frozen=True)
class LabelOptions:
    """How ratings are read.

    Attributes:
        scale: dimension -> the lowest and the highest rating; what is not named is in [-1, 1].
        unit: of times whose column does not say it; None where nobody says it.
        raters: of `RULES`.
        delay_s: people rate so much later than they see.
        splits: a table `video,split`, the split that all videos are in, or None.
    """

    scale: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    unit: str | None = None
    raters: str = "mean"
    delay_s: float = 0.0
    splits: Path | str | None = None

    def record(self, extra: Collection[str]) -> dict[str, Any]:
        """For the store's description; JSON. Of the extra dimensions, those that are stored."""
        own = {n: ends for n, ends in self.scale.items() if n in ("valence", "arousal", *extra)}
        return {
            "scale": {name: list(ends) for name, ends in own.items()},
            "time_unit": self.unit,
            "raters": self.raters,
            "delay_s": self.delay_s,
        }


def combined(ratings: Float[np.ndarray, "n r"], rule: str) -> Float[np.ndarray, "n"]:
    """One rating of each row, NaN where nobody rated it.

    Args:
        ratings: of each rater, NaN where they did not rate.
        rule: `mean`, or `ewe` for the evaluator-weighted estimator (Grimm and Kroschel 2005): a
            rater's weight is the correlation with the mean of all raters, over all rows, and 0 if
            it is negative. Where no weight is left, the mean.
    """
    if ratings.shape[1] == 1:
        return ratings[:, 0]
    weights = np.ones(ratings.shape[1])
    if rule == "ewe":
        mean = _mean(ratings, weights)
        weights = np.array([_correlation(r, mean) for r in ratings.T])
        weights = weights if weights.any() else np.ones_like(weights)
    one = _mean(ratings, weights)
    # A row that only raters of weight 0 rated.
    return np.where(np.isnan(one), _mean(ratings, np.ones_like(weights)), one)


def _mean(ratings: np.ndarray, weights: np.ndarray) -> np.ndarray:
    rated = np.isfinite(ratings) * weights
    total = rated.sum(axis=1)
    summed = (np.nan_to_num(ratings) * rated).sum(axis=1)
    return np.divide(summed, total, out=np.full(len(ratings), np.nan), where=total > 0)


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, at least 0; 0 where one does not move."""
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    return max(float(np.corrcoef(x, y)[0, 1]), 0.0)


def parse_scale(words: list[str]) -> dict[str, tuple[float, float]]:
    """`["1,5"]` or `["valence=1,5", "arousal=0,1"]` as dimension -> lowest, highest rating.

    Raises:
        UserError: other words.
    """
    scale: dict[str, tuple[float, float]] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        low, _, high = text.partition(",")
        try:
            ends = (float(low), float(high))
        except ValueError:
            ends = (0.0, 0.0)
        if name not in ("", *RATED) or not ends[0] < ends[1]:
            raise UserError(f"--scale {word}: expected LOW,HIGH or valence=LOW,HIGH, e.g. 1,5")
        for dimension in RATED if name == "" else (name,):
            scale[dimension] = ends
    return scale
