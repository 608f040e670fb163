"""Scores of extra targets against those of hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.concordance import ccc
from maven_jax.evaluation.extra_scores import describe_extra, score_extra
from maven_jax.evaluation.split_predictor import ExtraTrack, PredictedVideo
from maven_jax.store.schema import ExtraTarget, VideoEntry

EXPR = ExtraTarget("expr", "classes", ("Sad", "Calm", "Happy"))
AU = ExtraTarget("au", "binary", ("AU1", "AU2"))
DOMINANCE = ExtraTarget("dominance", "continuous", ("dominance",))


def video(**tracks: ExtraTrack) -> PredictedVideo:
    n = len(next(iter(tracks.values())).target_mask)
    entry = VideoEntry("v", "validation", n, 0, 25.0, 1.0, 0, "v", {}, {}, ((0, n),))
    nothing = np.zeros((n, 2), np.float32)
    return PredictedVideo(entry, nothing, nothing, np.zeros(n, bool), tracks)


def track(outputs: list, targets: list, mask: list) -> ExtraTrack:
    return ExtraTrack(np.array(outputs, np.float32), np.array(targets, np.float32), np.array(mask))


def test_classes_are_scored_by_macro_f1_over_the_annotated_frames():
    outputs = np.eye(3)[[0, 0, 1, 1, 2]].tolist()
    videos = [
        video(expr=track(outputs, [[0], [1], [1], [1], [0]], [True] * 4 + [False])),
        video(expr=track(np.eye(3)[[0]].tolist(), [[0]], [True])),
    ]
    scores = score_extra(videos, {"expr": EXPR})
    assert scores["expr"]["f1_by_label"] == pytest.approx({"Sad": 0.8, "Calm": 0.8, "Happy": 0})
    assert scores["expr"]["f1"] == pytest.approx(1.6 / 3)
    assert describe_extra(scores) == ["expr: macro-F1 0.533 on 5 annotated frames"]


def test_each_yes_or_no_is_scored_where_it_is_annotated():
    outputs = [[0.9, 0.9], [0.2, 0.9], [0.9, 0.1]]
    targets = [[1, 1], [1, -1], [0, 1]]
    scores = score_extra([video(au=track(outputs, targets, [True] * 3))], {"au": AU})
    assert scores["au"]["f1_by_label"] == pytest.approx({"AU1": 0.5, "AU2": 2 / 3})


def test_numbers_are_scored_by_ccc_and_nothing_by_nothing():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 50, 1)).astype(np.float32)
    seen = np.arange(50) < 30
    given = video(
        dominance=ExtraTrack(x, y, seen), au=track([[0, 0]] * 50, [[1, 1]] * 50, [False] * 50)
    )
    scores = score_extra([given], {"dominance": DOMINANCE, "au": AU})
    twice = (jnp.asarray(np.repeat(part[:30], 2, axis=1)) for part in (x, y))
    expected = float(ccc(*twice)[0])
    assert scores == {
        "dominance": {"kind": "continuous", "frames": 30, "ccc": pytest.approx(expected, abs=1e-6)}
    }
