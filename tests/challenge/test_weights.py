"""Weights of an ensemble: better than the mean where members differ, and honest about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main
from maven_jax.challenge.weights import choose, products, weigh
from tests.challenge.test_ensemble import ccc, columns, write_run

NOISE = (0.2, 0.3, 0.9)


def planted(seed: int, recordings: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each recording the tracks of members of different noise, and the targets."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(recordings):
        targets = 0.5 * np.sin(np.arange(120 + i) / 20 + rng.uniform(0, 6)).astype(np.float32)
        tracks = np.stack([targets + s * rng.normal(size=len(targets)) for s in NOISE])
        made.append((tracks + 0.1 * rng.normal(size=(3, 1)), targets))
    return made


def score(weights: list[np.ndarray], recordings: list[tuple[np.ndarray, np.ndarray]]) -> float:
    joined = np.concatenate([w @ tracks for w, (tracks, _) in zip(weights, recordings)])
    return ccc(joined, np.concatenate([t for _, t in recordings]).astype(np.float64))


def test_members_of_less_noise_weigh_more_and_the_estimate_is_leaving_out_by_hand():
    recordings = planted(0)
    by_recording = np.stack([products(*r) for r in recordings])
    found = weigh(by_recording)
    assert found.weights[0] > found.weights[1] > found.weights[2]
    assert found.weights.sum() == pytest.approx(1)
    assert found.chosen_on_it == pytest.approx(score([found.weights] * 8, recordings))
    assert found.equal == pytest.approx(score([np.full(3, 1 / 3)] * 8, recordings))
    by_hand = [choose(np.delete(by_recording, i, 0).sum(0)) for i in range(8)]
    assert found.left_out == pytest.approx(score(by_hand, recordings))
    assert found.equal < found.left_out < found.chosen_on_it
    # On recordings that chose nothing they are worth about what was estimated.
    fresh = planted(1, 200)
    elsewhere, equal = (score([w] * 200, fresh) for w in (found.weights, np.full(3, 1 / 3)))
    assert elsewhere > equal + 0.01
    assert np.isnan(weigh(by_recording[:1]).left_out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Runs evaluated on test; on validation too, with the same predictions."""
    home = tmp_path_factory.mktemp("runs")
    made = [write_run(home / f"r{i}", seed=i) for i in range(3)]
    for run in made:
        shutil.copytree(run / "eval/test", run / "eval/validation")
        shutil.copy(run / "eval/test.json", run / "eval/validation.json")
    return made


def test_weights_of_validation_are_applied_to_another_split(runs, tmp_path, capsys):
    given = [*map(str, runs), "--split", "test", "--weights", "validation"]
    assert main(["ensemble", *given, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "chosen on it, so it flatters" in printed
    assert "to be expected elsewhere" in printed
    written = json.loads((tmp_path / "eval/test.json").read_text())
    weights = written["weights"]
    assert weights["chosen_on"] == "validation"
    assert written["model"] == "weighted mean of 3"
    for d in ("valence", "arousal"):
        each = np.stack([columns(run / "eval/test/a.csv", d)[:, 0] for run in runs])
        made = columns(tmp_path / "eval/test/a.csv", d)[:, 0]
        np.testing.assert_allclose(made, np.clip(weights[d] @ each, -1, 1), atol=2e-6)
        assert weights["scores"][d]["ccc_equal"] <= weights["scores"][d]["ccc_chosen_on_it"]


def test_given_weights_are_shared_among_the_runs_that_predict_a_dimension(runs, tmp_path, capsys):
    alone = write_run(tmp_path / "alone", seed=9, dimensions=("valence",))
    out = tmp_path / "out"
    given = ["ensemble", str(runs[0]), str(alone), "--split", "test", "--out", str(out)]
    assert main([*given, "--weights", "1,3"]) == 0
    weights = json.loads((out / "eval/test.json").read_text())["weights"]
    assert (weights["valence"], weights["arousal"]) == ([0.25, 0.75], [1, 0])
    capsys.readouterr()
    for words, reason in (
        (["--weights", "1"], "expected validation, equal, or 2 numbers"),
        (["--weights", "1,-1"], "expected validation, equal, or 2 numbers"),
        (["--weights", "0,1"], "every run that predicts arousal has the weight 0"),
        (["--weights", "1,1", "--method", "ccc_centring"], "goes with --method mean"),
        (["--weights", "validation"], "alone/eval/validation.json: not there"),
    ):
        assert main([*given, *words]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1
