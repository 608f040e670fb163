"""CCC from sums, which can be added up over any set of videos."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def sums_of(
    predictions: Float[np.ndarray, "n"], targets: Float[np.ndarray, "n"]
) -> Float64[np.ndarray, "6"]:
    """n, Σx, Σy, Σx², Σy², Σxy of one dimension's annotated frames.

    Values lie in [-1, 1], so that float64 sums keep all the digits that a score has.
    """
    x, y = predictions.astype(np.float64), targets.astype(np.float64)
    return np.array([len(x), x.sum(), y.sum(), x @ x, y @ y, x @ y])


def ccc_of(total: Float64[np.ndarray, "*k 6"]) -> Float64[np.ndarray, "*k"]:
    """CCC by population moments from sums; 0 where both tracks stand still."""
    n = np.maximum(total[..., 0], 1)
    mean_x, mean_y = total[..., 1] / n, total[..., 2] / n
    covariance = total[..., 5] / n - mean_x * mean_y
    spread = total[..., 3] / n + total[..., 4] / n - 2 * mean_x * mean_y
    return np.divide(2 * covariance, spread, out=np.zeros_like(spread), where=spread > 1e-12)
