"""A workdir belongs to one run: not to somebody else's files, nor to two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maven_jax.errors import UserError
from maven_jax.runs.evaluate import evaluate
from maven_jax.runtime.lock import alone
from maven_jax.store.reader import Store
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.root import ROOT
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=3, frames=60)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and ".maven_jax" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("name", ["metrics.jsonl", "plots/mine.png", "config.json", "eval"])
def test_a_folder_of_somebody_else_is_no_workdir(name, store, tmp_path):
    (tmp_path / "w" / name).parent.mkdir(parents=True)
    (tmp_path / "w" / name).write_text('{"loss": 1}\n')
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"take another --workdir|the config that a run wrote"):
        train(small_recipe(store.path, "quickstart:mean"), tmp_path / "w")
    assert contents(tmp_path) == before


def test_a_store_is_no_workdir_and_stays_as_it_is(store, tmp_path):
    (tmp_path / "link").symlink_to(store.path)
    before = contents(store.path)
    for folder in (store.path, tmp_path / "link"):
        with pytest.raises(UserError, match=r"is config\.data\.store of the recipe"):
            train(small_recipe(store.path, "quickstart:mean"), folder)
    assert contents(store.path) == before


def test_one_process_trains_and_one_evaluates_at_a_time(store, tmp_path):
    config = small_recipe(store.path, "quickstart:mean", train__num_epochs=1.0)
    with alone(tmp_path / "w", "train"), pytest.raises(UserError, match="at work here"):
        train(config, tmp_path / "w")
    train(config, tmp_path / "w")
    with (
        alone(tmp_path / "w", "evaluate-validation"),
        pytest.raises(UserError, match="at work here"),
    ):
        evaluate(tmp_path / "w", "validation")
    with alone(tmp_path / "w", "train"):  # a run may be evaluated while it goes on
        evaluate(tmp_path / "w", "validation")


def test_an_evaluation_replaces_its_own_results_only_and_only_by_whole_ones(
    store, tmp_path, monkeypatch
):
    config = small_recipe(store.path, "quickstart:mean", train__num_epochs=1.0)
    train(config, tmp_path / "w")
    evaluate(tmp_path / "w", "validation")
    scores = tmp_path / "w" / "eval" / "validation.json"
    (tmp_path / "w" / "eval" / "validation" / "notes.csv").write_text("mine")
    before = contents(tmp_path)
    evaluate(tmp_path / "w", "validation")
    assert contents(tmp_path).keys() == before.keys()
    monkeypatch.setattr("maven_jax.evaluation.plots.plot_agreement", lambda *_: 1 / 0)
    before = contents(tmp_path)
    with pytest.raises(ZeroDivisionError):
        evaluate(tmp_path / "w", "validation")
    assert contents(tmp_path) == before
    monkeypatch.undo()
    scores.write_text(json.dumps(json.loads(scores.read_text()) | {"mine": 1}))
    with pytest.raises(UserError, match=r"validation.json: was changed after `evaluate` wrote it"):
        evaluate(tmp_path / "w", "validation")
    evaluate(tmp_path / "w", "validation", force=True)
    assert "mine" not in json.loads(scores.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [0.5, 3.0])
def test_an_interrupt_while_xla_compiles_ends_in_one_line(wait_s, store, tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from pathlib import Path\nfrom tests.support.recipes_for_tests import small_recipe\n"
        "def get_config(arg=''):\n"
        f"    return small_recipe(Path({str(store.path)!r}), 'maven', eval__hop=50)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "maven_jax", "train", "--config", recipe, "--workdir", "w"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "compiling the training step" not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(wait_s)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130, error
    assert error.strip() == "maven-jax train: interrupted; the same command continues"
