"""`launch/slurm.sbatch` without a Slurm: which words reach the run, and when the job is put back.

Programs that write their words down stand in for Slurm's; `tests/slurm` runs it on a real one.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.root import ROOT

SCRIPT = ROOT / "launch" / "slurm.sbatch"
TASK = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}


@pytest.fixture
def submit(tmp_path):
    """Runs the script as Slurm would; returns its end and the words of srun and scontrol."""

    def run(*words: str, code: int = 0, state: str = "RUNNING", finish: str = "", **env: str):
        bin_ = tmp_path / "bin"
        bin_.mkdir(exist_ok=True)
        programs = {
            "srun": f'printf "%s\\0" "$@" >"{tmp_path}/srun"\n'
            + (f'mkdir -p "{finish}" && touch "{finish}/finished.json"\n' if finish else "")
            + f"exit {code}",
            "squeue": f"echo {state}",
            "scontrol": f'echo "$@" >"{tmp_path}/scontrol"',
            "scancel": "",
            "maven-jax": "",
        }
        for name, body in programs.items():
            (bin_ / name).write_text(f"#!/bin/sh\n{body}\n")
            (bin_ / name).chmod(0o755)
        (tmp_path / "scontrol").write_text("")
        (tmp_path / "srun").write_text("")
        own = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
        own |= {"PATH": f"{bin_}{os.pathsep}{own['PATH']}", "SLURM_JOB_ID": "9"}
        done = subprocess.run(
            ["bash", SCRIPT, *words], env=own | env, capture_output=True, text=True, cwd=tmp_path
        )
        said = (tmp_path / "srun").read_text().split("\0")[:-1]
        return done, said, (tmp_path / "scontrol").read_text().strip()

    return run


def test_the_words_of_a_job_arrive_whole(submit):
    done, words, asked = submit("--config", "a b", "--workdir", "w x", "--config.c=*", finish="w x")
    assert done.returncode == 0, done.stderr
    expected = ["maven-jax", "train", "--config", "a b", "--config.c=*", "--workdir", "w x"]
    assert words == ["--kill-on-bad-exit=1", *expected]
    assert asked == ""
    assert "finished: w x" in done.stdout


@pytest.mark.parametrize(
    ("array", "value", "folder"),
    [("", "--config.seed=2", "seed2"), ("fold", "--config.data.fold=2", "fold2")],
)
def test_a_task_of_an_array_has_a_seed_or_a_fold_and_a_workdir(submit, array, value, folder):
    done, words, _ = submit(
        "--workdir=w", "--config=c", finish=f"w/{folder}", ARRAY=array or "seed", **TASK
    )
    assert done.returncode == 0, done.stderr
    assert words[1:] == ["maven-jax", "train", "--config=c", value, "--workdir", f"w/{folder}"]


def test_a_task_of_an_array_takes_its_words_from_a_file(submit, tmp_path):
    (tmp_path / "2.args").write_bytes(b"--config\0a\nb\0--workdir\0w\0")
    done, words, _ = submit("--config.seed=1", finish="w", ARRAY=str(tmp_path), **TASK)
    assert done.returncode == 0, done.stderr
    assert words[1:] == [
        *["maven-jax", "train", "--config", "a\nb"],
        *["--config.seed=1", "--workdir", "w"],
    ]
    done, words, _ = submit(finish="w", ARRAY=str(tmp_path / "none"), **TASK)
    assert done.returncode == 2
    assert "seed, fold or a folder with 2.args" in done.stderr
    assert words == []


def test_a_run_that_was_stopped_is_put_back_and_one_that_failed_is_not(submit):
    words = ("--config=c", "--workdir=w")
    done, _, asked = submit(*words)
    assert (done.returncode, asked) == (0, "requeue 9")
    done, _, asked = submit(*words, **TASK)
    # Not 9: the number of an array's last task is that of the whole array.
    assert (done.returncode, asked) == (0, "requeue 7_2")
    done, _, asked = submit(*words, code=5)
    assert (done.returncode, asked) == (5, "")
    # Slurm ends it already: preempted, cancelled.
    done, _, asked = submit(*words, state="COMPLETING")
    assert (done.returncode, asked) == (0, "")
    done, _, asked = submit(*words, SLURM_RESTART_COUNT="3", MAX_RESTARTS="3")
    assert (done.returncode, asked) == (2, "")
    assert "MAX_RESTARTS=3" in done.stderr


def test_a_job_without_workdir_ends_in_one_line(submit):
    for words in (["--config=c"], ["--config=c", "--workdir"]):
        done, said, _ = submit(*words)
        assert done.returncode == 2
        assert "--workdir" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert said == []
