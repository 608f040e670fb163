"""Real jobs of `launch/slurm.sbatch` on a real Slurm: they finish, and continue when preempted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch import sweep
from maven_jax.errors import UserError
from maven_jax.runs.metrics import read_metrics
from tests.support.root import ROOT
from tests.support.slurm_cluster import Cluster
from tests.support.stores import write_small_store

pytestmark = pytest.mark.multiprocess

LAUNCH = ROOT / "launch"
# `maven-jax` of the environment that runs the tests.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> list[str]:
    """Words of `maven-jax train` for a small run."""
    store = tmp_path_factory.mktemp("store") / "s"
    write_small_store(store, videos=4, frames=100)
    values = {
        "data.synthetic": None,
        "data.store": store,
        "data.window.length": 50,
        "data.window.hop": 50,
        "train.num_epochs": 2.0,
        "train.eval_every_epochs": 2.0,
        "train.log_every_steps": 1,
        "eval.batch_size": 8,
    }
    return ["--config=quickstart:concat", *(f"--config.{k}={v}" for k, v in values.items())]


def submit(cluster: Cluster, arguments: list[str], *options: str) -> str:
    script = str(LAUNCH / "slurm.sbatch")
    # Not for ever, should it never finish.
    env = {"PATH": PATH, "MAX_RESTARTS": "3"}
    return cluster.run("sbatch", "--parsable", *options, script, *arguments, **env)


def log(cluster: Cluster, job: str) -> str:
    path = cluster.folder / f"maven_jax-{job}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def train_steps(workdir: Path) -> list[int]:
    return [row["step"] for row in read_metrics(workdir) if row["kind"] == "train"]


def finished(workdir: Path, said: str) -> dict:
    path = workdir / "finished.json"
    assert path.exists(), said
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_job_of_two_tasks_is_the_run_of_two_local_processes(cluster, words, tmp_path):
    job = submit(cluster, [*words, f"--workdir={tmp_path}/slurm"], "--ntasks=2")
    cluster.wait_until_empty()
    said = log(cluster, job)
    done = finished(tmp_path / "slurm", said)
    assert "2 process" in said
    assert f"job {job}, start 1 on localhost" in said
    # The same words on this machine without Slurm.
    subprocess.run(
        [LAUNCH / "local.sh", "2", "train", *words, f"--workdir={tmp_path}/local"],
        env=os.environ | {"PATH": PATH},
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert done == finished(tmp_path / "local", said)
    rows = [read_metrics(tmp_path / name) for name in ("slurm", "local")]
    assert rows[0]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_requeued_job_continues_from_its_checkpoint(cluster, words, tmp_path):
    more = ["--config.train.num_epochs=1000", "--config.train.eval_every_epochs=1000"]
    more += ["--config.checkpoint.every_steps=100000", f"--workdir={tmp_path}/w"]
    job = submit(cluster, words + more, "--ntasks=2")
    cluster.wait_for(
        lambda: len(train_steps(tmp_path / "w")) > 20 or not cluster.queue(), "20 steps"
    )
    cluster.run("scontrol", "requeue", job)
    cluster.wait_until_empty()
    said = log(cluster, job)
    total = finished(tmp_path / "w", said)["steps"]
    # There is no other checkpoint than the one of the signal: it was continued from.
    saved = int(re.findall(r"stopped by SIGTERM: saved at step (\d+)", said)[0])
    assert 20 < saved < total
    assert re.findall(r"continuing from step (\d+) of (\d+)", said) == [(str(saved), str(total))]
    assert f"job {job}, start 2" in said
    assert train_steps(tmp_path / "w") == list(range(1, total + 1))


@pytest.mark.slow
def test_a_seed_of_an_array_that_reaches_the_time_limit_goes_back_into_the_queue(
    cluster, words, tmp_path
):
    more = ["--config.train.num_epochs=1000", "--config.train.eval_every_epochs=1000"]
    job = submit(cluster, [*words, *more, "--workdir", f"{tmp_path}/seeds"], "--array=0-1")
    folders = [tmp_path / "seeds" / f"seed{i}" for i in (0, 1)]
    cluster.wait_for(lambda: len(train_steps(folders[1])) > 20 or not cluster.queue(), "20 steps")
    # What --signal=B:TERM@180 does when the time limit comes: SIGTERM to the script alone.
    cluster.run("scancel", "--batch", "--signal=TERM", f"{job}_1")
    cluster.wait_until_empty()
    assert sorted((tmp_path / "seeds").iterdir()) == folders, cluster.logs()
    logs = [path.read_text(errors="replace") for path in cluster.folder.glob("maven_jax-*.log")]
    first_rows = []
    for seed, folder in enumerate(folders):
        said = next(text for text in logs if f"job {job}_{seed}," in text)
        total = finished(folder, said)["steps"]
        config = json.loads((folder / "config.json").read_text())["config"]
        assert config["seed"] == seed
        assert train_steps(folder) == list(range(1, total + 1))
        first_rows.append(read_metrics(folder)[0]["loss"])
        assert said.count("stopped, not finished: back into the queue") == seed
        # Seed 1 went on from where the signal stopped it, seed 0 never stopped.
        saved = re.findall(r"saved at step (\d+)", said)
        assert len(saved) == seed
        assert re.findall(r"continuing from step (\d+)", said) == saved
    assert first_rows[0] != first_rows[1]


def test_a_job_that_fails_is_not_put_back(cluster, words, tmp_path):
    job = submit(cluster, [*words, "--config.model.nam=x", f"--workdir={tmp_path}/w"])
    cluster.wait_until_empty()
    said = log(cluster, job)
    assert "did you mean 'name'" in said
    assert "the run failed (exit code 2); it is not repeated" in said
    assert "ExitCode=2:0" in cluster.run("scontrol", "show", "job", job)


@pytest.mark.slow
def test_a_sweep_is_an_array(cluster, words, tmp_path, monkeypatch):
    store = words[2].partition("=")[2]
    recipe = tmp_path / "small_sweep.py"
    recipe.write_text(
        "from maven_jax import recipes\n"
        "def get_config(arg=''):\n"
        "    c = recipes.load('quickstart:mean')\n"
        f"    c.data.synthetic, c.data.store = None, {store!r}\n"
        "    c.train.num_epochs, c.train.log_every_steps = 1.0, 1\n"
        "    return c\n"
        "def get_sweep():\n"
        "    values = ((50, 50), (50, 25))\n"
        "    return [{'name': f'w{n}_{h}', 'overrides': {'data.window.length': n,"
        " 'data.window.hop': h}} for n, h in values]\n"
    )
    monkeypatch.chdir(cluster.folder)
    for key, value in (cluster.env | {"PATH": PATH}).items():
        monkeypatch.setenv(key, value)
    command = [str(recipe), "--out", str(tmp_path / "a sweep"), "--slurm", "--at-most", "1"]
    assert sweep.main(command) == 0
    with pytest.raises(UserError, match="still in the queue"):
        sweep.main(command)
    cluster.wait_until_empty()
    for run in sweep.read_sweep(str(recipe), tmp_path / "a sweep"):
        assert run.finished(), cluster.logs()
        config = json.loads((run.workdir / "config.json").read_text())["config"]
        assert (
            f"w{config['data']['window']['length']}_{config['data']['window']['hop']}" == run.name
        )
    # Nothing is left to be submitted.
    assert sweep.main(command) == 0
    assert cluster.queue() == []
