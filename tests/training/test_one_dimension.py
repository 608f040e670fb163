"""A run for valence alone: what is scored, written, shown and compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.evaluation import plots
from maven_jax.experiment import trained_dimensions
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.metrics import read_metrics
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("one")
    store = write_small_store(home / "s", videos=5, frames=130)
    config = small_recipe(store.path, "quickstart:concat", loss__dimension_weights=(1.0, 0.0))
    train(config, home / "run")
    evaluate(home / "run", "validation")
    return home / "run"


def test_only_the_trained_dimension_is_scored(workdir):
    scores = json.loads((workdir / "eval/validation.json").read_text())
    assert scores["dimensions"] == ["valence"]
    for name in ("ccc_arousal", "ccc_arousal_video_mean", "pcc_arousal", "rmse_arousal"):
        assert scores[name] is None
    for name in ("ccc", "pcc", "rmse"):
        assert scores[name] == scores[f"{name}_valence"]
    assert all(video["ccc_arousal"] is None for video in scores["videos"].values())
    evaluations = [r for r in read_metrics(workdir) if r["kind"] == "validation"]
    assert evaluations
    assert all(r["ccc"] == r["ccc_valence"] for r in evaluations)


def test_the_other_ones_column_is_empty(workdir):
    file = next((workdir / "eval/validation").glob("*.csv"))
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert all(row["valence"] for row in rows)
    assert not any(row["arousal"] for row in rows)
    assert any(row["target_arousal"] for row in rows)


def test_it_is_plotted_and_compared(workdir, tmp_path, capsys):
    plots.plot_training(read_metrics(workdir), "validation", tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 1000
    assert list((workdir / "plots").glob("validation_agreement.png"))
    assert main(["compare", str(workdir)]) == 0
    assert "–" in capsys.readouterr().out


def test_a_loss_for_what_the_model_does_not_predict_is_refused(tmp_path):
    config = small_recipe(tmp_path, "rjcma:valence")
    assert trained_dimensions(config) == ("valence",)
    config.loss.dimension_weights = (1.0, 0.5)
    with pytest.raises(UserError, match="trains arousal, which a model with"):
        trained_dimensions(config)
