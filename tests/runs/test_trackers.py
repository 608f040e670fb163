"""A run's numbers in the real W&B and MLflow; what fails there costs nothing else."""

from __future__ import annotations

import os
import sys

import pytest

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.runs.metrics import open_writer, read_metrics
from maven_jax.runs.trackers import check
from maven_jax.runs.workdir import check_free
from tests.support.recipes_for_tests import small_recipe


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """What they set is gone after a test; nothing is on the network."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def write(workdir, config, steps) -> None:
    """What `train` writes of some steps, in a workdir of its own or a continued one."""
    workdir.mkdir(exist_ok=True)
    writer = open_writer(config, workdir, steps[0] - 1)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step, "note": "text"})
    writer.write(steps[-1], "validation", {"ccc": 0.5})
    writer.close()


@pytest.mark.slow
def test_mlflow_has_config_and_numbers_of_a_run_that_continued(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'maven_jax[mlflow]'")
    config = small_recipe(tmp_path / "store", train__mlflow="mine")
    write(tmp_path / "run", config, [1, 2])
    write(tmp_path / "run", config, [3, 4])
    client = mlflow.tracking.MlflowClient(f"file:{tmp_path / 'run/mlruns'}")
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.batch_size"] == "8"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert {m.step: m.value for m in losses} == {s: 1 / s for s in (1, 2, 3, 4)}
    assert run.data.metrics["validation/ccc"] == 0.5


@pytest.mark.slow
def test_wandb_offline_has_a_run_of_the_same_identity(tmp_path):
    pytest.importorskip("wandb", reason="pip install 'maven_jax[wandb]'")
    config = small_recipe(tmp_path / "store", train__wandb="mine")
    write(tmp_path / "run", config, [1, 2])
    write(tmp_path / "run", config, [3])
    folders = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    logs = [next(folder.glob("run-*.wandb")).read_bytes() for folder in folders]
    assert all(b"train/loss" in log and b"batch_size" in log for log in logs)


def test_what_fails_there_is_one_note(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)  # a broken package
    config = small_recipe(tmp_path / "store", train__mlflow="mine")
    write(tmp_path / "run", config, [1, 2])
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 2]
    assert capsys.readouterr().out.count("mlflow gets nothing from here on") == 1


def test_a_package_that_is_missing_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"train\.wandb='mine' needs .*maven_jax\[wandb\]"):
        check(small_recipe(tmp_path, train__wandb="mine"))
    check(small_recipe(tmp_path))


def test_another_programs_tracked_runs_are_left_alone(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "x").write_text("")
    with pytest.raises(UserError, match="holds wandb but no config"):
        check_free(tmp_path, recipes.load("quickstart"))
