"""Several processes as one run: who joins, who writes, and how they end together."""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

import pytest

from maven_jax.__main__ import main
from maven_jax.errors import UserError
from maven_jax.runs.metrics import read_metrics
from maven_jax.runtime import hosts
from tests.support.process_groups import Group
from tests.support.stores import write_small_store


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    hosts.add_arguments(parser)
    return parser.parse_args(flags)


FLAGS = ("--coordinator", "a:1", "--num-processes", "3", "--process-id", "2")
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
URI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}


@pytest.mark.parametrize(
    ("flags", "environ", "expected"),
    [
        ((), {}, None),
        (("--distributed", "on"), {}, {}),
        (
            FLAGS,
            SLURM,
            {
                "coordinator": "a:1",
                "num_processes": 3,
                "process_id": 2,
                "cluster_detection_method": "deactivate",
            },
        ),
        ((), SLURM, {"num_processes": 4, "process_id": 3}),
        (
            ("--coordinator", "a:1"),
            SLURM,
            {"coordinator": "a:1", "num_processes": 4, "process_id": 3},
        ),
        # A node's only task has all of its devices.
        (
            (),
            SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"},
            {"num_processes": 4, "process_id": 3, "local_device_ids": ()},
        ),
        # In the batch script, outside any step, and in a step of one task: alone.
        ((), {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),
        ((), SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (("--distributed", "off"), SLURM, None),
        ((), OPEN_MPI | URI, {"num_processes": 2, "process_id": 1}),
        (
            ("--coordinator", "a:1"),
            OPEN_MPI,
            {"coordinator": "a:1", "num_processes": 2, "process_id": 1},
        ),
        ((), {"TPU_WORKER_HOSTNAMES": "t0,t1"}, {}),
        ((), {"TPU_WORKER_HOSTNAMES": "t0"}, None),
        ((), {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, {}),
    ],
)
def test_flags_and_launchers_say_whom_to_join(flags, environ, expected):
    assert hosts.join_arguments(parsed(*flags), environ) == expected


def test_jax_finds_what_is_left_to_it(monkeypatch):
    from jax._src.clusters import ClusterEnv

    for environ, address in (
        (SLURM, f"n1:{77 + 65535 - 2**12 + 1}"),
        (OPEN_MPI | URI, f"10.96.0.1:{1531576320 // 2**12 % 2**12 + 65535 - 2**12 + 1}"),
    ):
        with monkeypatch.context() as m:
            for name, value in environ.items():
                m.setenv(name, value)
            given = hosts.join_arguments(parsed())
            detected = ClusterEnv.auto_detect_unset_distributed_params(
                None, given["num_processes"], given["process_id"], None, None, 1
            )
        assert detected == (address, given["num_processes"], given["process_id"], [1])


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        (FLAGS[:2], {}, "not --num-processes, --process-id; each process needs all three"),
        (FLAGS[2:], {}, "not --coordinator"),
        (("--distributed", "off", *FLAGS), {}, "--distributed off contradicts --coordinator"),
        (
            (*FLAGS[:4], "--process-id", "3"),
            {},
            "3: expected 0 to --num-processes - 1",
        ),
        (("--num-processes", "0"), {}, "--num-processes 0: expected at least 1"),
        (("--coordinator", "a", *FLAGS[2:]), {}, "--coordinator a: expected HOST:PORT"),
        ((), OPEN_MPI, "add --coordinator HOST:PORT"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags, environ, said):
    with pytest.raises(UserError, match=said):
        hosts.join_arguments(parsed(*flags), environ)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_half_given_flags_end_in_one_line(command, tmp_path, capsys):
    config = ["--config", "quickstart"] if command == "train" else []
    flags = ["--workdir", str(tmp_path), "--num-processes", "2"]
    assert main([command, *config, *flags]) == 2
    error = capsys.readouterr().err
    assert "not --coordinator, --process-id" in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", frames=100).path


def command(store: Path, workdir: Path, epochs: float = 4.0, **more: object) -> list[str]:
    """A run of a small model: 2 steps per epoch."""
    values = {
        "data.synthetic": None,
        "data.store": store,
        "data.window.length": 50,
        "data.window.hop": 50,
        "train.num_epochs": float(epochs),
        "train.eval_every_epochs": float(epochs) / 2,
        "train.batch_size": 8,
        "train.log_every_steps": 1,
        "eval.batch_size": 8,
        "checkpoint.every_steps": 1000,
        **{key.replace("__", "."): value for key, value in more.items()},
    }
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    return ["train", "--config", "quickstart:mean", "--workdir", str(workdir), *flags]


@pytest.mark.multiprocess
def test_two_processes_train_and_evaluate_and_one_of_them_writes(store, tmp_path):
    workdir = tmp_path / "run"
    with Group(tmp_path, command(store, workdir)) as group:
        assert group.codes() == [0, 0], group.output(0) + group.output(1)
        first, second = group.output(0), group.output(1)
    assert "2 process(es) x 1 cpu device(s), mesh data=2 model=1, batch 8 (4 per process)" in first
    # Gloo speaks for itself.
    assert not [line for line in second.splitlines() if "Gloo" not in line and "rank" not in line]
    rows = read_metrics(workdir)
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, max(steps) + 1))
    assert len(list((workdir / "tensorboard").glob("events*"))) == 1
    scores = json.loads((workdir / "eval/validation.json").read_text())
    finished = json.loads((workdir / "finished.json").read_text())
    assert finished == {"steps": max(steps), "best_step": scores["step"], "ccc": scores["ccc"]}

    (workdir / "eval/validation.json").unlink()
    with Group(tmp_path, ["evaluate", "--workdir", str(workdir)]) as group:
        assert group.codes() == [0, 0], group.output(0) + group.output(1)
    again = json.loads((workdir / "eval/validation.json").read_text())
    assert again["ccc"] == pytest.approx(scores["ccc"], abs=1e-6)


ENDLESS = 1e6
KILLED = "ended without notice: killed"


@pytest.mark.multiprocess
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_others_with_a_message(victim, store, tmp_path):
    other = 1 - victim
    with Group(tmp_path, command(store, tmp_path / "run", ENDLESS)) as group:
        group.wait_for("step 20/")
        group.signal(signal.SIGKILL, victim)
        (code,) = group.codes(other)
        assert code != 0
        if victim == 1:
            assert "[process 0] maven-jax: process 1 is silent" in group.last_line(0)
            assert "1 was last seen at step" in group.last_line(0)
        else:
            # The runtime aborts a process whose coordinator is gone; then the shell speaks.
            group.wait_for(KILLED, 1)
            assert "or process 0 is gone" in group.last_line(1)
        group.wait_for(KILLED, victim)
    assert not (tmp_path / "run/finished.json").exists()


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("victim", [0, 1])
def test_a_stopped_process_ends_the_others_with_a_message(victim, store, tmp_path):
    said = ("process 0 has not answered", "process 1 is silent")[victim]
    with Group(tmp_path, command(store, tmp_path / "run", ENDLESS)) as group:
        group.wait_for("step 20/")
        group.signal(signal.SIGSTOP, victim)
        assert group.codes(1 - victim) == [1]
        assert f"[process {1 - victim}] maven-jax: {said}" in group.last_line(1 - victim)


BROKEN = "raise UserError('store/s: record 3 is broken')"


def faulty(victim: int, fault: str) -> str:
    """A data source that breaks in one process at its 20th read."""
    return f"""
import time
from maven_jax.data import pipeline
from maven_jax.errors import UserError
if PROCESS == {victim}:
    real, reads = pipeline.WindowSource.read, []
    def read(*arguments):
        reads.append(1)
        if len(reads) == 20:
            {fault}
        return real(*arguments)
    pipeline.WindowSource.read = read
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_process_that_hangs_is_named(victim, store, tmp_path):
    arguments = [*command(store, tmp_path / "run", ENDLESS), "--stall-timeout", "10"]
    with Group(tmp_path, arguments, program=faulty(victim, "time.sleep(10**6)")) as group:
        assert group.codes() == [1, 1], group.output(0) + group.output(1)
        for i in (0, 1):
            assert f"process {victim} is behind" in group.last_line(i)
            assert "reading its batch" in group.last_line(i)


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("victim", "fault", "said", "code"),
    [
        (1, BROKEN, "store/s: record 3 is broken", 2),
        pytest.param(0, BROKEN, "store/s: record 3 is broken", 2, marks=pytest.mark.slow),
        pytest.param(1, "raise TypeError('a bug')", "TypeError: a bug", 1, marks=pytest.mark.slow),
    ],
)
def test_an_error_in_one_process_ends_both_at_once(victim, fault, said, code, store, tmp_path):
    arguments = command(store, tmp_path / "run", ENDLESS)
    with Group(tmp_path, arguments, program=faulty(victim, fault)) as group:
        assert group.codes() == [code, code], group.output(0) + group.output(1)
        other = 1 - victim
        assert group.last_line(victim) == f"[process {victim}] maven-jax: {said}"
        told = f"[process {other}] maven-jax: process {victim} ended: {said}"
        assert group.last_line(other) == told
    # What is a mistake of the user's has no traceback anywhere.
    assert ("Traceback" in group.output(victim)) == (code == 1)
    assert "Traceback" not in group.output(other)


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, (0,)),
        pytest.param(2, (1,), marks=pytest.mark.slow),
        pytest.param(2, (0, 1), marks=pytest.mark.slow),
    ],
)
def test_sigterm_saves_and_the_same_command_continues(count, told, store, tmp_path):
    epochs = 200.0
    arguments = command(store, tmp_path / "run", epochs, train__eval_every_epochs=100.0)
    with Group(tmp_path, arguments, count) as group:
        group.wait_for("step 10/")
        group.signal(signal.SIGTERM, *told)
        assert group.codes() == [0] * count, group.output(0)
        (step,) = saved_steps(tmp_path / "run")
        assert group.last_line(0) == (
            f"stopped by SIGTERM: saved at step {step}; the same command continues"
        )
    assert step >= 10
    assert not (tmp_path / "run/finished.json").exists()
    with Group(tmp_path, arguments, count) as group:
        assert group.codes() == [0] * count, group.output(0)
        assert f"continuing from step {step} of" in group.output(0)
    steps = [row["step"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert steps == list(range(1, max(steps) + 1))
    assert json.loads((tmp_path / "run/finished.json").read_text())["steps"] == max(steps)
