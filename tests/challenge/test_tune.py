"""Calibrations: what is planted is found, and nothing is kept that others would not have chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from maven_jax.challenge.template import bare_entry
from maven_jax.challenge.tune import MIN_GAIN, STEPS, Grid, tune
from maven_jax.evaluation.calibration import UNCHANGED, Adjustment
from maven_jax.evaluation.split_predictor import PredictedVideo

FPS = 25.0
WIDTHS = (0, 5, 21, 61, 201)
DELAYS_S = (0.0, 0.2, 0.4, 0.6)
GRID = Grid(DELAYS_S, WIDTHS, np.nan, np.nan)
NAMES = [f"r{i}" for i in range(5)]


def tracks(
    count: int = 5, *, noise: float = 0.0, lag: int = 0, scale: float = 1.0, seed: int = 0
) -> list[PredictedVideo]:
    """Slow sines that annotators follow late; predicted in time, narrower, with noise."""
    rng = np.random.default_rng(seed)
    videos = []
    for i in range(count):
        n = 400 + 10 * i
        at = np.arange(-lag, n)[:, None] / 60 + rng.uniform(0, 6, 2)
        seen = 0.6 * np.sin(at)
        predictions = scale * seen[lag:] + noise * rng.normal(size=(n, 2))
        mask = rng.random(n) < 0.9
        entry = dataclasses.replace(bare_entry(f"v{i}", n, int(mask.sum())), fps=FPS)
        targets = np.where(mask[:, None], seen[:n], 0).astype(np.float32)
        videos.append(PredictedVideo(entry, predictions.astype(np.float32), targets, mask))
    return videos


def moments(videos: list[PredictedVideo]) -> tuple[float, float]:
    labels = np.concatenate([v.targets[v.target_mask, 0] for v in videos])
    return float(labels.mean()), float(labels.std())


def valence(videos: list[PredictedVideo], adjustments: list[Adjustment]) -> float:
    """CCC by its formula, each video adjusted in its own way."""
    x = [h(v.predictions[:, 0], FPS)[v.target_mask] for v, h in zip(videos, adjustments)]
    y = [v.targets[v.target_mask, 0] for v in videos]
    x, y = np.concatenate(x).astype(np.float64), np.concatenate(y).astype(np.float64)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def kept(videos: list[PredictedVideo], grid: Grid = GRID) -> list[str]:
    return [t.step for t in tune(videos, 0, grid, NAMES).trials if t.kept]


def test_a_planted_lag_is_found():
    videos = tracks(lag=10)
    tuned = tune(videos, 0, GRID, NAMES)
    assert tuned.how == Adjustment(0.4, 0, 1.0, 0.0)
    assert tuned.raw < tuned.expected
    assert tuned.expected == pytest.approx(tuned.calibrated, abs=1e-6)
    assert tuned.calibrated == pytest.approx(valence(videos, [tuned.how] * 5), abs=1e-5)
    # In the other direction there is nothing to find.
    early = [dataclasses.replace(v, targets=np.roll(v.targets, -10, 0)) for v in tracks()]
    assert tune(early, 0, GRID, NAMES).how.delay_s == 0


def test_a_narrow_track_gets_the_mean_and_spread_of_the_training_labels():
    videos = tracks(scale=0.3)
    mean, std = moments(videos)
    tuned = tune(videos, 0, Grid((0.0,), (0,), mean, std), NAMES)
    every = np.concatenate([v.predictions[:, 0] for v in videos]).astype(np.float64)
    assert tuned.how.scale == pytest.approx(std / every.std(), rel=1e-9)
    assert tuned.how.shift == pytest.approx(mean - tuned.how.scale * every.mean(), abs=1e-9)
    assert tuned.raw < 0.7 < 0.99 < tuned.expected
    # It takes no label of the split, and other labels' moments that do not suit it are not kept.
    assert kept(videos, Grid((0.0,), (0,), 0.5, 0.01)) == []


def test_noise_takes_a_filter_and_what_needs_nothing_is_left_alone():
    noisy = tracks(noise=0.4)
    assert kept(noisy) == ["smoothing"]
    assert kept(tracks()) == []
    exact = tune(tracks(), 0, GRID, NAMES)
    assert exact.how == UNCHANGED
    assert exact.expected == exact.raw == pytest.approx(1.0, abs=1e-6)


def test_a_recording_does_not_choose_for_itself():
    """Alone the noisy one takes a filter; for all together it gains, for the others it does not."""
    videos = [*tracks(4), *tracks(1, noise=0.9, seed=5)]
    tuned = tune(videos, 0, GRID, NAMES)
    smoothing = next(t for t in tuned.trials if t.step == "smoothing")
    assert smoothing.chosen_on_it > tuned.raw + 0.01
    assert tuned.expected < smoothing.chosen_on_it
    # Two faces of one recording stay together, and two recordings are too few.
    few = tune(videos[2:], 0, GRID, ["a", "a", "b"])
    assert np.isnan(few.expected)
    assert few.how == UNCHANGED


def test_the_estimate_is_what_leaving_out_by_hand_gives():
    """By whole tracks and scores, without sums: choices, the steps kept and all."""
    videos = [*tracks(3, noise=0.3, lag=5), *tracks(2, noise=0.05, seed=3)]
    mean, std = moments(videos)
    grid = Grid((0.0, 0.2), (0, 21), mean, std)

    def spread(some: list[PredictedVideo], how: Adjustment) -> Adjustment:
        every = np.concatenate([how(v.predictions[:, 0], FPS) for v in some]).astype(np.float64)
        a = std / every.std()
        return dataclasses.replace(how, scale=a, shift=mean - a * every.mean())

    def best(some: list[PredictedVideo], steps: tuple[str, ...]) -> Adjustment:
        tried = [
            Adjustment(d, w, 1.0, 0.0)
            for d in (grid.delays_s if "delay" in steps else (0.0,))
            for w in (grid.widths if "smoothing" in steps else (0,))
        ]
        if "spread" in steps:
            tried = [spread(some, how) for how in tried]
        return max(tried, key=lambda how: valence(some, [how] * len(some)))

    def without(some: list[PredictedVideo], i: int) -> list[PredictedVideo]:
        return some[:i] + some[i + 1 :]

    def chosen(some: list[PredictedVideo]) -> Adjustment:
        steps, reached = (), valence(some, [UNCHANGED] * len(some))
        for step in STEPS:
            each = [best(without(some, i), (*steps, step)) for i in range(len(some))]
            if (new := valence(some, each)) > reached + MIN_GAIN:
                steps, reached = (*steps, step), new
        for step in steps[:-1]:
            fewer = tuple(s for s in steps if s != step)
            each = [best(without(some, i), fewer) for i in range(len(some))]
            if (new := valence(some, each)) > reached - MIN_GAIN:
                steps, reached = fewer, new
        return best(some, steps)

    tuned = tune(videos, 0, grid, NAMES)
    by_hand = [chosen(without(videos, i)) for i in range(5)]
    assert tuned.expected == pytest.approx(valence(videos, by_hand), abs=1e-5)
    found, expected = (dataclasses.astuple(x) for x in (tuned.how, chosen(videos)))
    assert found == pytest.approx(expected, abs=1e-5)


def test_steps_that_gain_by_the_recordings_at_hand_alone_are_not_kept():
    """Four recordings of different levels: each decides by the others, and they decide badly."""
    rng, videos = np.random.default_rng(1), []
    for i in range(4):
        targets = rng.uniform(-0.5, 0.5) + 0.2 * rng.normal(size=60)
        predictions = 0.3 * targets + rng.uniform(-0.3, 0.3) + 0.1 * rng.normal(size=60)
        entry = dataclasses.replace(bare_entry(f"v{i}", 60, 60), fps=FPS)
        x, y = (np.stack([a, a], 1).astype(np.float32) for a in (predictions, targets))
        videos.append(PredictedVideo(entry, x, y, np.ones(60, bool)))
    tuned = tune(videos, 0, Grid((0.0,), (0, 5, 21), *moments(videos)), NAMES[:4])
    assert [t.step for t in tuned.trials if t.kept] == ["spread"]
    assert tuned.trials[-1].left_out > tuned.raw + 0.05
    assert tuned.expected < tuned.raw
    assert tuned.how == UNCHANGED
    assert tuned.calibrated == tuned.raw
