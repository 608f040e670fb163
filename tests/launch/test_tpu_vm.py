"""`launch/tpu_vm.sh`: what it prints in a dry run, and how it goes on after a preemption.

There is no Cloud TPU here. The loop runs against a program named gcloud that writes its words down,
and answers as a script of states says: it shows what would be run, not that Google would take it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.root import ROOT

SCRIPT = ROOT / "launch" / "tpu_vm.sh"
SLICE = ["--name", "maven", "--zone", "us-west4-a"]
KIND = ["--type", "v5litepod-16", "--runtime", "v2-alpha-tpuv5-lite"]
# A path and a value that a careless script would take apart.
WORKDIR = "/mnt/a share/it's; rm x"
TRAIN = ["--config", "maven", "--workdir", WORKDIR, "--config.data.modalities=visual,audio"]

# Answers `describe` with the next line of `states` ("none": there is no such thing), the run's
# `ssh` with the next line of `codes`, and looks for finished.json in vain but for the last time.
RECORDER = """\
#!/usr/bin/env bash
here=$(dirname "$0")
printf '%s\\0' "$@" >>"$here/said"
printf '\\n\\0' >>"$here/said"
next() { head -n 1 "$here/$1"; sed -i 1d "$here/$1"; }
case "$*" in
  *describe*)
    answer=$(next states)
    [[ $answer != none ]] || { echo "ERROR: NOT_FOUND: no such thing" >&2; exit 1; }
    echo "$answer" ;;
  *"test -f"*) [[ ! -s $here/codes ]] ;;
  *"maven-jax train"*) exit "$(next codes)" ;;
esac
"""


def run(arguments: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"POLL_S": "0"}
    if folder is not None:
        env["PATH"] = f"{folder}{os.pathsep}{env['PATH']}"
    return subprocess.run(
        [SCRIPT, *arguments], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def record(folder: Path, arguments: list[str], states: list[str], codes: list[int]):
    """What the script made of these answers, and the commands that it ran."""
    folder.mkdir(exist_ok=True)
    (folder / "gcloud").write_text(RECORDER)
    (folder / "gcloud").chmod(0o755)
    (folder / "states").write_text("".join(f"{s}\n" for s in states))
    (folder / "codes").write_text("".join(f"{c}\n" for c in codes))
    (folder / "said").write_text("")
    done = run(arguments, folder)
    commands = (folder / "said").read_text().split("\n\0")[:-1]
    return done, [["gcloud", *c.split("\0")[:-1]] for c in commands]


def verbs(commands: list[list[str]]) -> list[str]:
    """`create`, `delete`, `scp`, `ssh`, without the looks at states."""
    return [c[4] for c in commands if c[4] != "describe"]


def test_a_dry_run_prints_what_would_be_run(tmp_path):
    arguments = [*SLICE, *KIND, "--spot", "--setup", "mount 'x y'", "--", *TRAIN]
    done = run(["--dry-run", *arguments])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("+ ") for line in lines)
    printed = [shlex.split(line[2:]) for line in lines]
    # The same with a slice that is not there at first, and all going well.
    done, commands = record(tmp_path / "bin", arguments, ["none", "none", "READY", "ACTIVE"], [0])
    assert done.returncode == 0, done.stderr
    ran = [c for i, c in enumerate(commands) if c[4] != "describe" or i < 2]
    # The archive has a name of its own each time.
    archive = next(c[5] for c in ran if c[4] == "scp")
    ran = [[w.replace(archive, "/tmp/maven_jax.tar.gz") for w in c] for c in ran]
    assert ran == [c for c in printed if c[0] == "gcloud"]
    packed = [c for c in printed if c[0] != "gcloud"]
    assert [c[:2] for c in packed] == [["bash", "-c"]]


def test_the_words_of_the_training_command_arrive_whole():
    done = run(["--dry-run", *SLICE, *KIND, "--", *TRAIN])
    words = [shlex.split(line[2:]) for line in done.stdout.splitlines()]
    remote = [w.partition("=")[2] for c in words for w in c if w.startswith("--command=")]
    train = next(c for c in remote if "maven-jax train" in c)
    # The workers' shell takes the command apart once more.
    exec_at = train.index("exec ")
    inner = shlex.split(train[exec_at:])
    assert inner[1].endswith("/bin/maven-jax")
    assert inner[2:] == ["train", *TRAIN, "--distributed", "on"]
    check = subprocess.run(
        ["bash", "-c", "printf '%s\\0' " + train[exec_at + len("exec ") :]],
        capture_output=True,
        text=True,
    )
    assert check.stdout.split("\0")[1:-1] == ["train", *TRAIN, "--distributed", "on"]
    assert shlex.split(remote[-1]) == ["test", "-f", f"{WORKDIR}/finished.json"]


def test_a_preempted_slice_is_requested_again_and_the_run_continues(tmp_path):
    states = ["none", "none", "none", "WAITING_FOR_RESOURCES", "READY", "ACTIVE"]
    # The run ends: the slice is gone, and its request soon after.
    states += ["PREEMPTED", "PREEMPTED", "SUSPENDING", "none", "SUSPENDED", "none", "none"]
    states += ["READY", "ACTIVE"]
    arguments = [*SLICE, *KIND, "--spot", "--", *TRAIN]
    done, commands = record(tmp_path / "bin", arguments, states, [1, 0])
    assert done.returncode == 0, done.stderr
    one = ["create", "scp", "ssh", "ssh", "ssh"]
    assert verbs(commands) == [*one, "delete", *one]
    trained = [c for c in commands if "maven-jax train" in c[-1]]
    assert len(trained) == 2
    assert trained[0] == trained[1]
    assert "--spot" in next(c for c in commands if c[4] == "create")


def test_a_run_that_fails_on_a_whole_slice_is_not_repeated_for_ever(tmp_path):
    states = ["READY", "none", "READY"] * 3
    arguments = [*SLICE, *KIND, "--retries", "2", "--", *TRAIN]
    done, commands = record(tmp_path / "bin", arguments, states, [2, 2, 2, 0])
    assert done.returncode == 2
    assert "failed 3 times" in done.stderr
    assert sum("maven-jax train" in c[-1] for c in commands) == 3
    # One installation, nothing made and nothing deleted.
    assert verbs(commands) == ["scp", "ssh", *["ssh", "ssh"] * 3]


def test_a_slice_is_deleted_on_request_only(tmp_path):
    arguments = [*SLICE, *KIND, "--delete-when-finished", "--", *TRAIN]
    done, commands = record(tmp_path / "bin", arguments, ["READY", "ACTIVE"], [0])
    assert done.returncode == 0, done.stderr
    assert verbs(commands)[-1] == "delete"
    done, commands = record(tmp_path / "bin", [*SLICE, "--project", "p", "--delete"], [], [])
    assert done.returncode == 0, done.stderr
    assert [" ".join(c) for c in commands] == [
        "gcloud compute tpus queued-resources delete maven --zone=us-west4-a --project=p "
        "--force --quiet"
    ]


def test_a_failed_request_ends_with_where_to_look(tmp_path):
    arguments = [*SLICE, *KIND, "--", *TRAIN]
    done, commands = record(tmp_path / "bin", arguments, ["none", "FAILED"], [])
    assert done.returncode == 2
    assert "queued-resources describe maven" in done.stderr
    assert verbs(commands) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "maven"], "--zone"),
        ([*SLICE, "--", *TRAIN], "--type"),
        ([*SLICE, *KIND, "--", "--config", "maven"], "--workdir"),
        ([*SLICE, *KIND, "--", "--workdir", "runs/x"], "absolute path"),
        ([*SLICE, *KIND, "--config", "maven"], "--config"),
        (["--name", "a;b", "--zone", "z"], "a;b"),
    ],
)
def test_wrong_words_end_in_one_line(arguments, message):
    done = run(["--dry-run", *arguments])
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
