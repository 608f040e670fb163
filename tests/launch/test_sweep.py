"""`launch/sweep.py`: reading a sweep, its local queue with real runs, its commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import sweep
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.runtime.lock import alone
from tests.support.root import ROOT
from tests.support.stores import write_small_store

RECIPE = """
from maven_jax import recipes

def get_config(arg=""):
    c = recipes.load(f"quickstart:{{arg or 'mean'}}")
    c.data.synthetic = None
    c.data.store = {store!r}
    c.data.window.length = c.data.window.hop = 50
    c.train.num_epochs = 1.0
    c.train.log_every_steps = 1
    c.train.eval_every_epochs = 1.0
    return c

def get_sweep():
    return {runs}
"""


def write(folder: Path, runs: str, store: str = "stores/none") -> str:
    path = folder / "some_sweep.py"
    path.write_text(RECIPE.format(store=store, runs=runs))
    return str(path)


def test_the_example_is_a_sweep_and_its_values_arrive(tmp_path):
    runs = sweep.read_sweep("sweeps/learning_rate", tmp_path)
    assert len({run.workdir for run in runs}) == len(runs) == 6
    rates = []
    for run in runs:
        config = recipes.load(run.recipe)
        recipes.override(config, run.overrides)
        rates.append((config.optimizer.learning_rate, config.seed))
    assert rates == [(rate, seed) for rate in (3e-4, 1e-3, 3e-3) for seed in (0, 1)]


def test_commands_give_each_value_its_type(tmp_path, capsys):
    values = {
        "data.modalities": ("visual",),
        "model.head_dims": (8, 16),
        "data.fold": None,
        "eval.smooth_frames": [3, 5],
        "model.shared_norm": False,
        "data.store": "a store",
        "optimizer.clip_norm": 2,
    }
    runs = repr([{"name": "a", "variant": "polar", "overrides": values}])
    arguments = [write(tmp_path, runs), "--out", str(tmp_path / "o"), "--print"]
    assert sweep.main(arguments) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words[:3] == ["maven-jax", "train", "--config"]
    config = recipes.load(words[3])
    recipes.override(config, words[6:])
    assert config.model.head == "polar"
    assert config.data.modalities == ("visual",)
    assert config.model.head_dims == (8, 16)
    assert config.eval.smooth_frames == (3, 5)
    assert config.model.shared_norm is False
    assert (config.data.fold, config.data.store) == (None, "a store")
    assert config.optimizer.clip_norm == 2.0
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/tmp/x", "..", ".", ".sweep", "", "-x", "a\nb", "a b", 3]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    runs = repr([{"name": name, "overrides": {}}])
    with pytest.raises(UserError, match="cannot be a folder") as error:
        sweep.read_sweep(write(tmp_path, runs), tmp_path / "o")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("[{'name': 'a', 'overrides': {'modle.name': 1}}]", r"run 0 \(a\).*did you mean 'model'"),
        ("[{'name': 'a', 'overrides': {'seed': 'x'}}]", r"run 0 \(a\).*expected int"),
        ("[{'name': 'a', 'overrides': {}, 'variant': 'cnocat'}]", "did you mean 'concat'"),
        ("[{'name': 'a', 'overrides': {}}, {'name': 'A', 'overrides': {}}]", "run 1.*twice"),
        ("[{'name': 'a'}]", "name, overrides"),
        ("[{'name': 'a', 'overrides': {}, 'sede': 1}]", "name, overrides"),
        ("[]", "a list with a dict per run"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(tmp_path, runs, message):
    with pytest.raises(UserError, match=message):
        sweep.main([write(tmp_path, runs), "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_a_recipe_is_not_a_sweep(tmp_path):
    with pytest.raises(UserError, match="no get_sweep"):
        sweep.read_sweep("quickstart", tmp_path)


def test_a_run_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,7")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert sweep.visible_gpus() == []
    monkeypatch.delenv("JAX_PLATFORMS")
    assert sweep.visible_gpus() == ["2", "7"]
    with pytest.raises(UserError, match="--jobs 3 on 2 GPU"):
        sweep.LocalQueue([], 3, ["2", "7"])


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    name = write(tmp_path, "[{'name': 'a', 'overrides': {}}]")
    with alone(tmp_path / "o", "sweep"), pytest.raises(UserError, match="at work here already"):
        sweep.main([name, "--out", str(tmp_path / "o")])


def start(name: str, out: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "launch.sweep", name, "--out", str(out), *options],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_queue_goes_on_behind_a_failure_and_continues_where_it_stopped(tmp_path):
    write_small_store(tmp_path / "s", videos=2, frames=60)
    # The second run fails only once it runs.
    runs = [{"name": f"seed{i}", "overrides": {"seed": i}} for i in (0, 2)]
    runs.insert(1, {"name": "lost", "overrides": {"data.store": f"{tmp_path}/later"}})
    name, out = write(tmp_path, repr(runs), str(tmp_path / "s")), tmp_path / "o"
    queue = start(name, out, "--jobs", "2")
    said, _ = queue.communicate()
    assert queue.returncode == 1, said
    rows = [line.replace("│", " ").split() for line in said.splitlines() if "│" in line]
    assert [row[:2] for row in rows] == [
        ["seed0", "finished"],
        ["lost", "failed"],
        ["seed2", "finished"],
    ]
    assert "later" in next(line for line in said.splitlines() if line.startswith("lost: failed"))
    for i in (0, 2):
        config = json.loads((out / f"seed{i}" / "config.json").read_text())["config"]
        assert config["seed"] == i
    # What was missing comes, and only what is missing is run.
    (tmp_path / "later").symlink_to(tmp_path / "s")
    before = (out / "seed0" / "finished.json").stat().st_mtime_ns
    queue = start(name, out)
    said, _ = queue.communicate()
    assert queue.returncode == 0, said
    assert "3 runs, 2 of them finished" in said
    assert [x.split(":")[0] for x in said.splitlines() if "begins" in x] == ["lost"]
    assert (out / "seed0" / "finished.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_signal_stops_the_runs_and_the_same_command_continues(tmp_path):
    write_small_store(tmp_path / "s", videos=2, frames=60)
    values = {"train.num_epochs": 1500.0, "train.eval_every_epochs": 1500.0}
    runs = repr([{"name": "a", "variant": "concat", "overrides": values}])
    name, out = write(tmp_path, runs, str(tmp_path / "s")), tmp_path / "o"
    queue = start(name, out)
    metrics = out / "a" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 20:
        assert queue.poll() is None
        time.sleep(0.05)
    queue.send_signal(signal.SIGTERM)
    said, _ = queue.communicate()
    assert queue.returncode == 1, said
    assert "a: stopped" in said
    assert not (out / "a" / "finished.json").exists()
    queue = start(name, out)
    said, _ = queue.communicate()
    assert queue.returncode == 0, said
    log = (out / ".sweep" / "logs" / "a.log").read_text()
    step = log.split("saved at step ")[1].split(";")[0]
    assert f"continuing from step {step} of" in log
