"""Scores of extra targets against those of hand."""

from __future__ import annotations

import csv

import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.challenge.evaluated import read_table
from maven_jax.concordance import ccc
from maven_jax.evaluation.extra_scores import describe_extra, score_extra
from maven_jax.evaluation.report import write_csv
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


def track(target: ExtraTarget, outputs: list, targets: list, mask: list) -> ExtraTrack:
    values = (np.array(x, np.float32) for x in (outputs, targets))
    return ExtraTrack(target, *values, np.array(mask))


def test_classes_are_scored_by_macro_f1_over_the_annotated_frames():
    outputs = np.eye(3)[[0, 0, 1, 1, 2]].tolist()
    videos = [
        video(expr=track(EXPR, outputs, [[0], [1], [1], [1], [0]], [True] * 4 + [False])),
        video(expr=track(EXPR, np.eye(3)[[0]].tolist(), [[0]], [True])),
    ]
    scores = score_extra(videos)
    assert scores["expr"]["f1_by_label"] == pytest.approx({"Sad": 0.8, "Calm": 0.8, "Happy": 0})
    assert scores["expr"]["f1"] == pytest.approx(1.6 / 3)
    assert describe_extra(scores) == ["expr: macro-F1 0.533 on 5 annotated frames"]


def test_each_yes_or_no_is_scored_where_it_is_annotated():
    outputs = [[0.9, 0.9], [0.2, 0.9], [0.9, 0.1]]
    targets = [[1, 1], [1, -1], [0, 1]]
    scores = score_extra([video(au=track(AU, outputs, targets, [True] * 3))])
    assert scores["au"]["f1_by_label"] == pytest.approx({"AU1": 0.5, "AU2": 2 / 3})


def test_numbers_are_scored_by_ccc_and_nothing_by_nothing():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 50, 1)).astype(np.float32)
    seen = np.arange(50) < 30
    given = video(
        dominance=ExtraTrack(DOMINANCE, x, y, seen),
        au=track(AU, [[0, 0]] * 50, [[1, 1]] * 50, [False] * 50),
    )
    scores = score_extra([given])
    twice = (jnp.asarray(np.repeat(part[:30], 2, axis=1)) for part in (x, y))
    expected = float(ccc(*twice)[0])
    assert scores == {
        "dominance": {"kind": "continuous", "frames": 30, "ccc": pytest.approx(expected, abs=1e-6)}
    }


def test_predictions_and_annotations_stand_behind_valence_and_arousal(tmp_path):
    given = video(
        dominance=track(DOMINANCE, [[0.5], [-0.25]], [[0.125], [0]], [True, False]),
        expr=track(EXPR, [[0.2, 0.5, 0.3]] * 2, [[0], [2]], [False, True]),
        au=track(AU, [[0.9, 0.1]] * 2, [[1, -1], [0, 1]], [True, False]),
    )
    write_csv(given, np.array([0.0, 0.04]), tmp_path / "v.csv")
    with (tmp_path / "v.csv").open() as file:
        first, second = csv.DictReader(file)
    assert list(first)[6:] == [
        *("dominance", "target_dominance"),
        *("expr_Sad", "expr_Calm", "expr_Happy", "target_expr"),
        *("au_AU1", "au_AU2", "target_au_AU1", "target_au_AU2"),
    ]
    assert (first["dominance"], first["target_dominance"]) == ("0.500000", "0.125000")
    assert (second["dominance"], second["target_dominance"]) == ("-0.250000", "")
    assert (first["expr_Calm"], first["target_expr"]) == ("0.500000", "")
    assert second["target_expr"] == "Happy"
    assert [first[f"target_au_AU{k}"] for k in (1, 2)] == ["1", ""]
    assert [second[f"target_au_AU{k}"] for k in (1, 2)] == ["", ""]
    # Who reads tables of valence and arousal passes over them.
    np.testing.assert_array_equal(read_table(tmp_path / "v.csv").time_s, [0, 0.04])
