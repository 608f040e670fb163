"""One writer at a time, by real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from maven_jax.errors import UserError
from maven_jax.runtime.lock import alone

HOLDER = """
    import sys, time
    from pathlib import Path
    from maven_jax.runtime.lock import alone
    with alone(Path(sys.argv[1]), "train", shared=len(sys.argv) > 2):
        print("held", flush=True)
        sys.stdin.read()
"""


def hold(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_there_and_since_when(tmp_path):
    first = hold(tmp_path / "w")
    with pytest.raises(UserError) as refused, alone(tmp_path / "w", "train"):
        pass
    host = os.uname().nodename
    assert f"w: process {first.pid} on {host} since 20" in str(refused.value)
    with alone(tmp_path / "w", "evaluate-test"):  # something else
        pass
    first.communicate("")
    with alone(tmp_path / "w", "train"):
        pass
    assert not (tmp_path / "w").exists()  # it was made for the lock alone


def test_a_killed_holder_is_no_hindrance_nor_is_a_file_of_another_host(tmp_path):
    first = hold(tmp_path)
    first.kill()
    first.wait()
    path = tmp_path / ".maven_jax" / "train.lock"
    assert json.loads(path.read_text())["pid"] == first.pid
    with alone(tmp_path, "train"):
        pass
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"host": "gone", "pid": 1, "since": "2020-01-01"}))
    with alone(tmp_path, "train"):
        pass


def test_shared_holders_keep_one_out_who_wants_it_alone(tmp_path):
    first = hold(tmp_path, "shared")
    second = hold(tmp_path, "shared")
    with pytest.raises(UserError, match="is at work here"), alone(tmp_path, "train"):
        pass
    first.communicate("")
    with pytest.raises(UserError, match="is at work here"), alone(tmp_path, "train"):
        pass
    second.communicate("")
    with (
        alone(tmp_path, "train"),
        pytest.raises(UserError, match="this process is at work"),
        alone(tmp_path, "train"),
    ):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    """A folder that somebody else packed may hold one; who holds a lock is written into it."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "w" / ".maven_jax").mkdir(parents=True)
    (tmp_path / "w" / ".maven_jax" / "train.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"train\.lock"), alone(tmp_path / "w", "train"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / ".maven_jax").symlink_to(tmp_path / "w")
    with pytest.raises(UserError, match="is a link"), alone(tmp_path / "v", "train"):
        pass
