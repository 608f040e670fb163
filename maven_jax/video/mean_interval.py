"""How well a clip's own length fixes the mean of a curve that wanders."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

# Fewer independent values than this say nothing about their spread.
_LEAST = 4.0
# The quantile of the normal distribution that leaves 5 % outside.
_Z = 1.96


def mean_interval(values: Float[np.ndarray, "n"]) -> tuple[float, float] | None:
    """The 95 % interval of a curve's mean, by the spread of its frames and how alike they are.

    Neighbouring frames say the same thing, so the number of frames is divided by the integrated
    autocorrelation time: autocorrelations are summed up to the first pair whose sum is not positive
    (Geyer, Practical Markov chain Monte Carlo, 1992, section 3.3). The interval says how much the
    mean would move with another stretch of the same scene; the model's error is not in it.

    Args:
        values: without NaN, in order of time.

    Returns:
        Its ends; None for a curve that is too short or too slow to tell.
    """
    n = len(values)
    if n < _LEAST:
        return None
    centred = values - values.mean()
    variance = float(centred @ centred) / n
    if variance == 0:
        return float(values.mean()), float(values.mean())
    spectrum = np.fft.rfft(centred, 2 * n)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:n] / (n * variance)
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    effective = n / max(2 * float(pairs[:stop].sum()) - 1, 1.0)
    if effective < _LEAST:
        return None
    half = _Z * math.sqrt(variance / (effective - 1))
    mean = float(values.mean())
    return mean - half, mean + half
