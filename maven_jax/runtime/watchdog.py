"""Ends a run that stands still, on all hosts, with a line that names the process at fault.

All processes count their progress ("beats") in the same order. Once a second a thread of each
writes its process's count to the coordinator's key-value store, and the first process compares. A
process with fewer beats than the others is behind: they wait for it in a collective, which no
exception would ever end. A silent process is dead or stopped. The verdict goes back through the
same store; every process prints it and ends at once, without the barriers of an orderly end.

A single process is watched too, with more patience, as nobody waits for it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from maven_jax import progress
from maven_jax.errors import listing

PERIOD_S = 1.0
# Threads report every second: only a process that is killed, stopped or cut off is silent for this
# long. Well below the runtime's own limit, at which it crashes with a stack trace.
SILENCE_S = 30.0
# The time-out times these for compiling, saving and other pauses: of some processes, of all.
_PAUSED_BEHIND, _PAUSED_TOGETHER = 10.0, 60.0
# The time-out times this for the steps of a single process, and before any step was timed.
_PATIENCE = 10.0
# A step may always take this many times as long as the longest of the latest ones.
_SLOWER = 4.0
_STATUS, _VERDICT = "maven_jax/status/", "maven_jax/verdict/"
CONTINUES = "every process ends; the same command continues from the last checkpoint"


@dataclasses.dataclass
class Status:
    """How far a process is.

    Attributes:
        beats: progress of any kind so far; comparable between processes.
        step: training steps taken.
        doing: what it does now, for the message.
        paused: whether that may take long.
    """

    beats: int
    step: int
    doing: str
    paused: bool

    def __str__(self) -> str:
        return f"at step {self.step}, {self.doing}"


class Watchdog:
    """Watches this process and, through the coordinator, the others.

    Args:
        timeout_s: seconds without progress after which the run ends; infinite for never.
        client: the key-value store that all processes share; None for a single process.
        process: index of this process.
        count: number of processes.
    """

    def __init__(self, timeout_s: float, client: Any = None, process: int = 0, count: int = 1):
        self.process, self.count = process, count
        self._timeout_s, self._client = timeout_s, client
        self._status = Status(0, 0, "starting", True)
        self._last_beat = self._last_answer = time.monotonic()
        self._latest_s: collections.deque[float] = collections.deque(maxlen=16)
        self._court = Court(timeout_s, count)
        self._stopped, self._ending = threading.Event(), threading.Lock()
        self._exit_notice: ExitNotice | None = None

    def start(self) -> None:
        """Starts watching."""
        if self._client is not None:
            self._exit_notice = ExitNotice(
                f"[process {self.process}] maven-jax: ended without notice: killed"
                + (", or process 0 is gone" if self.process else "")
                + f"; {CONTINUES}"
            )
        threads = [self._judge] if self._client is None else [self._judge, self._talk]
        for thread in threads:
            threading.Thread(target=thread, daemon=True).start()

    def stop(self) -> None:
        """Stops watching; for when all processes are done."""
        self._stopped.set()
        if self._exit_notice is not None:
            self._exit_notice.withdraw()

    def beat(self, step: int, doing: str) -> None:
        """Notes progress; all processes have to call it in the same order.

        Args:
            step: training steps taken so far.
            doing: what the process does next.
        """
        self._move(step, doing, False)

    def pause(self, doing: str) -> None:
        """Says that work of unknown length follows, until the next beat."""
        self._move(self._status.step, doing, True)

    @contextlib.contextmanager
    def paused(self, doing: str) -> Iterator[None]:
        """A context for work of unknown length: compiling, saving, writing."""
        self.pause(doing)
        yield
        self._move(self._status.step, f"after {doing}", False)

    def _move(self, step: int, doing: str, paused: bool) -> None:
        now = time.monotonic()
        if not self._status.paused:
            self._latest_s.append(now - self._last_beat)
        self._last_beat = now
        self._status = Status(self._status.beats + 1, step, doing, paused)

    def leave(self, message: str, code: int, others: str = "") -> NoReturn:
        """Ends this process at once, and tells the others why, so that they end too.

        Args:
            message: why, in one line.
            code: exit code.
            others: what the others print; by default `message` with this process's number.
        """
        if self._client is not None:
            with contextlib.suppress(Exception):  # an earlier verdict stays
                others = others or f"process {self.process} ended: {message}"
                verdict = {"message": others, "code": code}
                self._client.key_value_set(f"{_VERDICT}first", json.dumps(verdict))
        self._end(message, code)

    def _end(self, message: str, code: int) -> NoReturn:
        with self._ending:  # the first thread to come here prints, and never releases the lock
            name = f"[process {self.process}] " if self.count > 1 else ""
            # The main thread's collective may fail now, and it would print a line or two.
            progress.silence()
            sys.stdout.flush()
            print(f"{name}maven-jax: {message}", file=sys.stderr, flush=True)
            if self._exit_notice is not None:
                self._exit_notice.withdraw()
            if self.process == 0 and self.count > 1:
                # The store ends with this process: let the others read the verdict first.
                time.sleep(3 * PERIOD_S)
            os._exit(code)

    def _judge(self) -> None:
        """Ends the run when a process is silent or makes no progress; runs in a thread."""
        last_check = time.monotonic()
        while not self._stopped.wait(PERIOD_S):
            now = time.monotonic()
            if now - last_check > SILENCE_S / 3:
                # This process itself was stopped, and what it knows of the others is outdated.
                self._last_beat += now - last_check
                self._last_answer += now - last_check
                self._court.forget()
            last_check = now
            if self.process > 0:
                if now - self._last_answer > SILENCE_S:
                    self._end(
                        f"process 0 has not answered for {SILENCE_S:.0f} s (killed, stopped or cut "
                        f"off) while this one was {self._status}; {CONTINUES}",
                        1,
                    )
                continue
            self._court.hear(0, self._status, now)
            verdict = self._court.verdict(max(self._latest_s, default=None), now)
            if verdict is not None:
                self.leave(verdict, 1, verdict)

    def _talk(self) -> None:
        """Reports this process's status and reads what the others wrote; runs in a thread."""
        number = 0
        while not self._stopped.wait(PERIOD_S):
            number += 1
            report = {"number": number, "status": dataclasses.asdict(self._status)}
            try:
                self._client.key_value_set(f"{_STATUS}{self.process}", json.dumps(report), True)
                if self.process == 0:
                    for key, text in self._client.key_value_dir_get(_STATUS):
                        self._court.read(int(key.rsplit("/", 1)[1]), json.loads(text))
                verdicts = self._client.key_value_dir_get(_VERDICT)
            except Exception:
                continue  # no answer; `_judge` counts for how long
            self._last_answer = time.monotonic()
            for _, text in verdicts:
                verdict = json.loads(text)
                self._end(verdict["message"], verdict["code"])


class Court:
    """Decides from the reports of all processes whether one of them is behind or dead.

    Args:
        timeout_s: see `Watchdog`.
        count: number of processes.
    """

    def __init__(self, timeout_s: float, count: int):
        self._timeout_s, self._count = timeout_s, count
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Drops all reports, and with them how long each process has been where it is."""
        with self._lock:
            self._status: dict[int, Status] = {}
            self._number: dict[int, int] = {}
            self._heard: dict[int, float] = {}
            self._since: dict[int, float] = {}
            self._behind_since: dict[int, float] = {}

    def read(self, process: int, report: dict[str, Any]) -> None:
        """Takes another process's report from the store; one that was read before is no news."""
        if process > 0 and self._number.get(process) != report["number"]:
            self._number[process] = report["number"]
            self.hear(process, Status(**report["status"]), time.monotonic())

    def hear(self, process: int, status: Status, now: float) -> None:
        """Takes a process's status; `now` is when it was heard."""
        with self._lock:
            earlier = self._status.get(process)
            if earlier is None or earlier.beats != status.beats:
                self._since[process] = now
                self._behind_since.pop(process, None)
            self._status[process], self._heard[process] = status, now

    def verdict(self, step_s: float | None, now: float) -> str | None:
        """What is wrong, in a line; None if nothing is.

        Args:
            step_s: seconds that the longest of the latest steps took; None before the first.
            now: the time, on the clock of `hear`.
        """
        with self._lock:
            silent = [i for i, at in self._heard.items() if now - at > SILENCE_S]
            if silent:
                last = "; ".join(f"{i} was last seen {self._status[i]}" for i in silent)
                return (
                    f"{_are(silent)} silent for {SILENCE_S:.0f} s (killed, stopped or cut off): "
                    f"{last}; {CONTINUES}"
                )
            if len(self._status) < self._count:
                return None
            ahead = max(status.beats for status in self._status.values())
            behind = [i for i, status in self._status.items() if status.beats < ahead]
            if behind:
                return self._behind(behind, step_s, now)
            return self._together(step_s, now)

    def _behind(self, behind: list[int], step_s: float | None, now: float) -> str | None:
        """The verdict where some processes have fewer beats than others."""
        last = min(self._status[i].beats for i in behind)
        late = [i for i in behind if self._status[i].beats == last]
        for i in late:
            since = self._behind_since.setdefault(i, now)
            limit = max(self._timeout_s, _SLOWER * (step_s or 0.0))
            if self._status[i].paused:
                limit = _PAUSED_BEHIND * self._timeout_s
            if now - since > limit:
                states = "; ".join(f"{j} is {self._status[j]}" for j in late)
                return (
                    f"no progress for {limit:.0f} s: {_are(late)} behind, the others wait: {states}"
                    f"; {CONTINUES} (--stall-timeout sets the time)"
                )
        return None

    def _together(self, step_s: float | None, now: float) -> str | None:
        """The verdict where all processes have the same number of beats."""
        status = self._status[0]
        limit = max(self._timeout_s, _SLOWER * (step_s or 0.0))
        if status.paused:
            limit = _PAUSED_TOGETHER * self._timeout_s
        elif step_s is None or self._count == 1:
            limit = max(limit, _PATIENCE * self._timeout_s)
        if now - max(self._since.values()) <= limit:
            return None
        who = "" if self._count == 1 else f" in any of {self._count} processes, none is behind:"
        return (
            f"no progress for {limit:.0f} s{who} {status}; {CONTINUES} "
            "(--stall-timeout sets the time)"
        )


def _are(processes: list[int]) -> str:
    if len(processes) == 1:
        return f"process {processes[0]} is"
    return f"processes {listing([str(i) for i in processes])} are"


class ExitNotice:
    """A shell that waits for this process to end and then prints a message, unless withdrawn.

    A killed process cannot say so itself.

    Args:
        message: what the shell prints.
    """

    def __init__(self, message: str):
        self._shell: subprocess.Popen | None = None
        with contextlib.suppress(OSError):  # no shell, no notice
            self._shell = subprocess.Popen(
                # `read` fails when the other end of the pipe is closed with nothing written.
                ["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', message],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                close_fds=True,
            )

    def withdraw(self) -> None:
        """Ends the shell without a message: the end is orderly, or was explained."""
        if self._shell is None:
            return
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):
            self._shell.stdin.write(b"\n")
            self._shell.stdin.close()
        self._shell.wait()
        self._shell = None
