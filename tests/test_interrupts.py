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


def test_an_interruption_that_is_swallowed_ends_the_command_all_the_same(tmp_path):
    """One in a destructor, which Python ignores, and one that somebody catches."""
    code = """
import os, signal, sys, time
from maven_jax import __main__ as program
from maven_jax.runtime import interrupts
interrupts.GRACE_S = 0.5
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
def destructor():
    Deaf()
    time.sleep(60)
def catcher():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except KeyboardInterrupt:
        time.sleep(60)
program.main = globals()[sys.argv[1]]
program.run()
"""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for case in ("destructor", "catcher"):
            done = subprocess.run(
                [sys.executable, "-c", code, case],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=30,
            )
            line = f"maven-jax {case}: interrupted; the same command begins anew"
            assert (done.returncode, done.stderr.strip()) == (130, line)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("wait_s", [1, 4, 15])  # imports, checks, training
def test_the_doctor_begins_anew(wait_s, tmp_path):
    begin = time.monotonic()
    code, error = interrupted(["doctor"], tmp_path, lambda: time.monotonic() > begin + wait_s)
    assert (code, error) == (130, "maven-jax doctor: interrupted; the same command begins anew")
