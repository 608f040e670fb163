"""Ctrl-C: real processes, a real SIGINT to all of the terminal's group, exit code 130, one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.root import ROOT

_PATIENCE_S = 100


def interrupted(arguments: list[str], folder: Path, begun: Callable[[], bool]) -> tuple[int, str]:
    """Exit code and stderr of a command that gets SIGINT when `begun` says so."""
    # Tests run in the background of a script ignore SIGINT, and would pass that on.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (folder / "stderr").open("w") as errors, (folder / "stdout").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "maven_jax", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, before)
        try:
            end = time.monotonic() + _PATIENCE_S
            while not begun():
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(_PATIENCE_S)
            # The workers end too.
            while members(process.pid):
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            process.kill()
    return code, (folder / "stderr").read_text().strip()


def members(group: int) -> bool:
    """Whether a process group has any left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_corpus_that_workers_write_is_continued(tmp_path):
    words = ["synth", "--out", "corpus", "--videos", "40", "--workers", "2"]
    partial = tmp_path / "corpus" / ".partial"
    code, error = interrupted(words, tmp_path, lambda: partial.exists() and any(partial.iterdir()))
    assert (code, error) == (130, "maven-jax synth: interrupted; the same command continues")


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [1, 4, 15])  # imports, checks, training
def test_the_doctor_begins_anew(wait_s, tmp_path):
    begin = time.monotonic()
    code, error = interrupted(["doctor"], tmp_path, lambda: time.monotonic() > begin + wait_s)
    assert (code, error) == (130, "maven-jax doctor: interrupted; the same command begins anew")
