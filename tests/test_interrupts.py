"""Ctrl-C: real processes, a real SIGINT to all of the terminal's group, exit code 130, one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.root import ROOT


def interrupted(arguments: list[str], folder: Path, sign: str) -> tuple[int, str]:
    """Exit code and stderr of a command that gets SIGINT when `sign` has been printed."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "maven_jax", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests run in the background of a script ignore SIGINT, and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    while sign not in process.stdout.readline():
        assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate()[1]
    return process.returncode, error.strip()


def test_a_corpus_that_workers_write_can_be_continued(tmp_path):
    words = ["synth", "--out", "corpus", "--videos", "40", "--workers", "2"]
    code, error = interrupted(words, tmp_path, "videos")
    assert (code, error) == (130, "maven-jax synth: interrupted; the same command continues")


@pytest.mark.slow
def test_the_doctor_begins_anew(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "maven_jax", "doctor"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(12)  # it trains
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate()[1].strip()
    expected = "maven-jax doctor: interrupted; the same command begins anew"
    assert (process.returncode, error) == (130, expected)
