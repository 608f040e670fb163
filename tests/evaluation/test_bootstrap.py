"""The interval of a score: recordings are drawn, and all their frames with them."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.evaluation import bootstrap
from maven_jax.evaluation.bootstrap import ccc_interval, draws
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.store.schema import VideoEntry


def predicted(recordings: int, seed: int = 0) -> list[PredictedVideo]:
    """Recordings of different lengths; the first has two faces, the last no annotation."""
    rng = np.random.default_rng(seed)
    stems = ["r00", *(f"r{i:02d}" for i in range(recordings)), "silent"]
    made = []
    for i, stem in enumerate(stems):
        n = 20 + 5 * i
        targets = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
        values = np.clip(0.5 * targets + 0.4 * rng.normal(size=(n, 2)) + 0.2 * rng.normal(), -1, 1)
        mask = (rng.random(n) < 0.8) & (stem != "silent")
        one = VideoEntry(f"v{i}", "train", n, 0, 25.0, n / 25, n, stem, {}, {}, ((0, n),))
        made.append(PredictedVideo(one, values.astype(np.float32), targets, mask))
    return made


def plain_ccc(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_it_is_that_of_a_plain_loop_over_the_same_draws(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK", 7 * 300)  # several blocks, the last one shorter
    videos = predicted(7)
    frames = {}
    for video in videos[:-1]:
        both = np.stack([video.predictions, video.targets])[:, video.target_mask]
        frames.setdefault(video.entry.stem, []).append(both)
    scores = []
    for counts in np.concatenate(list(draws(7))):
        drawn = [both for c, name in zip(counts, sorted(frames)) for both in c * frames[name]]
        x, y = np.concatenate(drawn, 1)
        scores.append([plain_ccc(x[:, 0], y[:, 0]), plain_ccc(x[:, 1], y[:, 1])])
    assert np.shape(scores) == (2000, 2)
    expected = np.quantile(scores, [0.025, 0.975], axis=0)
    interval = ccc_interval(videos)
    assert interval is not None
    assert interval["recordings"] == 7
    assert interval["ccc_valence"] == pytest.approx(expected[:, 0], abs=1e-9)
    assert interval["ccc_arousal"] == pytest.approx(expected[:, 1], abs=1e-9)
    mean = np.quantile(np.mean(scores, 1), [0.025, 0.975])
    assert interval["ccc"] == pytest.approx(mean, abs=1e-9)
    low, high = interval["ccc"]
    assert low < score(videos)[0]["ccc"] < high
    backwards = ccc_interval(videos[::-1])
    assert backwards is not None
    assert backwards["ccc"] == pytest.approx(interval["ccc"])


def test_only_predicted_dimensions_have_one_and_only_several_recordings():
    interval = ccc_interval(predicted(3), ("arousal",))
    assert interval is not None
    assert interval["ccc_valence"] is None
    assert interval["ccc"] == interval["ccc_arousal"]
    assert ccc_interval(predicted(1)) is None
    assert ccc_interval(predicted(1)[-1:]) is None
