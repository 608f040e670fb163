"""Which calibration suits a run, by its validation predictions.

Annotators lag behind what they see, a frame-level model's tracks jitter more than people's ratings,
and a model that is unsure stays close to the mean. So three steps may help, for valence and arousal
apart: later values, a box filter, and a map that gives the tracks the mean and spread of the
training labels. The map comes last, because the filter narrows the spread. It uses no label of the
tuned split; which delay and width are best, and whether a step is kept, does.

A recording that took part in a choice flatters it. So a step is kept only if it gains when each
recording is scored by what all others would have chosen. That decision too was made by all
recordings: what to expect elsewhere is estimated by repeating everything without each of them. If
that is no more than the raw score, the tracks stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from maven_jax.evaluation.calibration import UNCHANGED, Adjustment, delayed, moving_average
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.sums import ccc_of, sums_of

# Frames. RJCA takes 20 and 50, a frame-level model gained most at 101 (spec, section 0).
WIDTHS = (0, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300)
# Seconds that annotators lag (Mariooryad and Busso, IEEE TAC 2015). A model that was trained on
# their labels has learnt a part of it.
DELAYS_S = tuple(i / 10 for i in range(16))
STEPS = ("delay", "smoothing", "spread")
# Fewer recordings leave none to choose by when two are left out.
MIN_RECORDINGS = 3
_SUMS = 9
# A gain that the three digits of a table do not show is none.
MIN_GAIN = 5e-4


@dataclass(frozen=True)
class Grid:
    """What is tried for one dimension.

    Attributes:
        delays_s: rising, the first 0.
        widths: rising, the first 0.
        mean: of the training labels; NaN if they are not known.
        std: of the same.
    """

    delays_s: Sequence[float]
    widths: Sequence[int]
    mean: float
    std: float


@dataclass(frozen=True)
class Trial:
    """The result of trying one more step.

    Attributes:
        step: which.
        how: what all recordings choose, with the steps kept before.
        chosen_on_it: ccc on the recordings that chose.
        left_out: ccc of each recording by what the others choose; all concatenated.
        gained: whether that gained.
        kept: whether it still does beside the later ones.
    """

    step: str
    how: Adjustment
    chosen_on_it: float
    left_out: float
    gained: bool
    kept: bool


@dataclass(frozen=True)
class Tuned:
    """What suits one dimension.

    Attributes:
        raw: ccc of the predictions as they are, all annotated frames concatenated.
        trials: of the steps, in order.
        how: the calibration; nothing, if `expected` is no gain.
        calibrated: ccc with it, on the recordings that chose it.
        expected: ccc when all choices for each recording, that of the steps included, are made by
            the others; NaN if there are too few recordings.
    """

    raw: float
    trials: tuple[Trial, ...]
    how: Adjustment
    calibrated: float
    expected: float


Sums = Float64[np.ndarray, "*k 9"]


def sums(x: np.ndarray, video: PredictedVideo, dimension: int) -> Float64[np.ndarray, "9"]:
    """Of a track (n,): n, Σx, Σy, Σx², Σy², Σxy over annotated frames; n, Σx, Σx² over all.

    Values lie in [-1, 1], so that float64 sums keep all the digits that a score has.
    """
    every, mask = x.astype(np.float64), video.target_mask
    annotated = sums_of(every[mask], video.targets[mask, dimension])
    return np.array([*annotated, len(every), every.sum(), every @ every])


def sums_by_recording(
    videos: Sequence[PredictedVideo], dimension: int, grid: Grid, recordings: Sequence[str]
) -> Float64[np.ndarray, "r d w 9"]:
    """`sums` of each recording at each delay and width, recordings in order of their names."""
    names = sorted(set(recordings))
    out = np.zeros((len(names), len(grid.delays_s), len(grid.widths), _SUMS))
    for video, name in zip(videos, recordings):
        for d, delay_s in enumerate(grid.delays_s):
            late = delayed(video.predictions[:, dimension], delay_s, video.entry.fps)
            for w, width in enumerate(grid.widths):
                out[names.index(name), d, w] += sums(moving_average(late, width), video, dimension)
    return out


def affine(total: Sums, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The maps x -> a x + b that give all frames the training labels' mean and spread, (*k,) each.

    Tracks that stand still stay as they are.
    """
    n = np.maximum(total[..., 6], 1)
    mean = total[..., 7] / n
    std = np.sqrt(np.maximum(total[..., 8] / n - mean**2, 0))
    moves = std > 1e-6
    a = np.divide(grid.std, std, out=np.ones_like(std), where=moves)
    return a, np.where(moves, grid.mean - a * mean, 0.0)


def mapped(total: Sums, a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, "*k 6"]:
    """The first six sums of the tracks a x + b, before anything is clipped."""
    n, x, y, xx, yy, xy = (total[..., i] for i in range(6))
    sum_xx = a**2 * xx + 2 * a * b * x + b**2 * n
    return np.stack([n, a * x + b * n, y, sum_xx, yy, a * xy + b * y], -1)


def fit(
    total: Float64[np.ndarray, "k d w 9"], steps: Sequence[str], grid: Grid
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The best delay, width and map by each of k sums; of equals, the smallest.

    Args:
        total: of the recordings that choose.
        steps: those allowed.
        grid: what was tried.

    Returns:
        Numbers of the delays and widths, scales and shifts, (k,) each.
    """
    delays = total.shape[1] if "delay" in steps else 1
    widths = total.shape[2] if "smoothing" in steps else 1
    part = total[:, :delays, :widths].reshape(len(total), delays * widths, -1)
    a, b = np.ones(part.shape[:2]), np.zeros(part.shape[:2])
    if "spread" in steps:
        a, b = affine(part, grid)
    best = ccc_of(mapped(part, a, b)).argmax(1)
    rows = np.arange(len(total))
    return best // widths, best % widths, a[rows, best], b[rows, best]


def left_out(by_recording: Sums, steps: Sequence[str], grid: Grid) -> float:
    """CCC of all recordings, each adjusted by what the others choose among these steps."""
    d, w, a, b = fit(by_recording.sum(0) - by_recording, steps, grid)
    own = by_recording[np.arange(len(by_recording)), d, w]
    return float(ccc_of(mapped(own, a, b).sum(0, keepdims=True))[0])


def choose(
    by_recording: Sums, allowed: Sequence[str], grid: Grid
) -> tuple[Adjustment, tuple[Trial, ...]]:
    """The adjustment by some recordings, and how each step fared."""
    kept, trials = [], []
    score = left_out(by_recording, kept, grid)
    for step in (s for s in STEPS if s in allowed):
        steps = [*kept, step]
        tried = left_out(by_recording, steps, grid)
        how, chosen_on_it = _fitted(by_recording, steps, grid)
        gained = tried > score + MIN_GAIN
        trials.append(Trial(step, how, chosen_on_it, tried, gained, gained))
        if gained:
            kept, score = steps, tried
    for step in kept[:-1]:
        fewer = [s for s in kept if s != step]
        without = left_out(by_recording, fewer, grid)
        if without > score - MIN_GAIN:
            kept, score = fewer, without
    final = tuple(dataclasses.replace(t, kept=t.step in kept) for t in trials)
    return _fitted(by_recording, kept, grid)[0], final


def _fitted(by_recording: Sums, steps: Sequence[str], grid: Grid) -> tuple[Adjustment, float]:
    """What all these recordings choose, and their own ccc with it, unclipped."""
    total = by_recording.sum(0)
    d, w, a, b = fit(total[None], steps, grid)
    how = Adjustment(grid.delays_s[d[0]], grid.widths[w[0]], float(a[0]), float(b[0]))
    return how, float(ccc_of(mapped(total[d, w], a, b))[0])


def tune(
    videos: Sequence[PredictedVideo],
    dimension: int,
    grid: Grid,
    recordings: Sequence[str],
    steps: Sequence[str] = STEPS,
) -> Tuned:
    """The calibration of one dimension, and an estimate of its real gain.

    Args:
        videos: predictions as the model gives them, with annotations.
        dimension: 0 for valence, 1 for arousal.
        grid: what to try.
        recordings: of each video; two faces of one recording share theirs.
        steps: those allowed; `spread` takes labels whose moments are known.
    """
    names = sorted(set(recordings))
    whole = _score(videos, dimension, [UNCHANGED] * len(videos))
    if len(names) < MIN_RECORDINGS:
        return Tuned(whole, (), UNCHANGED, whole, float("nan"))
    allowed = [s for s in steps if s != "spread" or np.isfinite(grid.mean)]
    by_recording = sums_by_recording(videos, dimension, grid, recordings)
    how, trials = choose(by_recording, allowed, grid)
    others = {
        name: choose(np.delete(by_recording, i, 0), allowed, grid)[0]
        for i, name in enumerate(names)
    }
    expected = _score(videos, dimension, [others[name] for name in recordings])
    if expected <= whole + MIN_GAIN:  # the steps kept owe their gain to the recordings at hand
        how = UNCHANGED
    calibrated = _score(videos, dimension, [how] * len(videos))
    return Tuned(whole, trials, how, calibrated, expected)


def _score(
    videos: Sequence[PredictedVideo], dimension: int, adjustments: Sequence[Adjustment]
) -> float:
    """CCC of all videos, each adjusted in its own way, over all annotated frames concatenated."""
    tracks = [
        how(video.predictions[:, dimension], video.entry.fps)
        for video, how in zip(videos, adjustments)
    ]
    total = np.sum([sums(x, video, dimension) for x, video in zip(tracks, videos)], 0)
    return float(ccc_of(total[None, :6])[0])
