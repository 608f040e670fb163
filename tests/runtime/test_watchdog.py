"""When the watchdog ends a run, and when it has patience."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maven_jax.runtime.watchdog import SILENCE_S, Court, Status, Watchdog
from tests.support.root import ROOT

TIMEOUT_S = 10.0


def verdict(*said: tuple[Status, float], now: float, step_s: float | None = 1.0) -> str | None:
    """Of a court that heard from process i its status, and the time at which it took it.

    All are alive, and a process that is behind has been so since then.
    """
    court = Court(TIMEOUT_S, len(said))
    times = sorted({since for _, since in said} | {now})
    for at in times:
        for i, (status, since) in enumerate(said):
            earlier = Status(status.beats - 1, status.step, "before", False)
            court.hear(i, status if at >= since else earlier, at)
        text = court.verdict(step_s, at)
    return text


READING, COMPUTING = (8, 5, "reading its batch", False), (9, 5, "computing", False)


def test_who_keeps_the_others_waiting_is_named():
    said = [(Status(*COMPUTING), 0.0), (Status(*READING), 0.0)]
    assert verdict(*said, now=TIMEOUT_S) is None
    text = verdict(*said, now=TIMEOUT_S + 1)
    assert text is not None
    assert "process 1 is behind" in text
    assert "at step 5, reading its batch" in text


def test_only_those_that_are_last_are_named():
    said = [
        (Status(10, 6, "reading its batch", False), 0.0),
        (Status(*READING), 0.0),
        (Status(*COMPUTING), 0.0),
        (Status(*READING), 0.0),
    ]
    text = verdict(*said, now=TIMEOUT_S + 1)
    assert text is not None
    assert "processes 1, 3 are behind" in text


def test_steps_that_take_long_and_compilation_have_more_time():
    said = [(Status(*COMPUTING), 0.0), (Status(*READING), 0.0)]
    assert verdict(*said, now=3 * TIMEOUT_S, step_s=TIMEOUT_S) is None
    assert verdict(*said, now=4 * TIMEOUT_S + 1, step_s=TIMEOUT_S) is not None
    said = [(Status(*COMPUTING), 0.0), (Status(8, 0, "compiling", True), 0.0)]
    assert verdict(*said, now=9 * TIMEOUT_S) is None
    assert verdict(*said, now=10 * TIMEOUT_S + 1) is not None


def test_nobody_is_behind_where_all_stand_still():
    said = [(Status(*COMPUTING), 0.0), (Status(*COMPUTING), 0.0)]
    assert verdict(*said, now=TIMEOUT_S) is None
    assert verdict(*said, now=TIMEOUT_S + 1, step_s=None) is None  # the first step may take longer
    text = verdict(*said, now=TIMEOUT_S + 1)
    assert text is not None
    assert "in any of 2 processes, none is behind: at step 5, computing" in text
    compiling = [(Status(1, 0, "compiling", True), 0.0)] * 2
    assert verdict(*compiling, now=59 * TIMEOUT_S) is None


def test_progress_starts_the_clock_anew():
    court = Court(TIMEOUT_S, 1)
    for beats in range(100):
        court.hear(0, Status(beats, beats, "computing", False), beats * TIMEOUT_S)
        assert court.verdict(1.0, beats * TIMEOUT_S) is None


def test_a_process_on_its_own_is_given_more_time():
    alone = [(Status(*COMPUTING), 0.0)]
    assert verdict(*alone, now=10 * TIMEOUT_S) is None
    text = verdict(*alone, now=10 * TIMEOUT_S + 1)
    assert text is not None
    assert text.startswith("no progress for 100 s at step 5, computing;")


def test_a_silent_process_is_named_and_old_reports_do_not_count():
    court = Court(TIMEOUT_S, 2)
    court.hear(1, Status(*READING), 0.0)
    court.hear(0, Status(*READING), SILENCE_S + 1)
    text = court.verdict(1.0, SILENCE_S + 1)
    assert text is not None
    assert text.startswith(f"process 1 is silent for {SILENCE_S:.0f} s")
    court.forget()
    report = {"number": 3, "status": vars(Status(*READING))}
    court.read(1, report)
    heard = court._heard[1]
    court.read(1, report)
    assert court._heard[1] == heard
    court.read(1, report | {"number": 4})
    assert court._heard[1] > heard


@pytest.mark.multiprocess
def test_a_process_that_stands_still_is_ended_with_a_line():
    code = """
import sys, time
from maven_jax.runtime.watchdog import Watchdog
watchdog = Watchdog(1.2)
watchdog.start()
for step in range(3):
    watchdog.beat(step, "computing")
print("steps taken", flush=True)
time.sleep(10**6)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "steps taken\n"
        _, error = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 1
    assert error.startswith("maven-jax: no progress for 12 s at step 2, computing;")
    assert error.count("\n") == 1


def test_a_pause_lasts_until_the_next_beat():
    watchdog = Watchdog(TIMEOUT_S)
    with watchdog.paused("saving"):
        assert watchdog._status.paused
    assert not watchdog._status.paused
    watchdog.pause("writing the report")
    assert watchdog._status.paused
    assert str(watchdog._status) == "at step 0, writing the report"
    watchdog.beat(1, "computing")
    assert not watchdog._status.paused
