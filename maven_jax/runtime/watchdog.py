"""A run that stands still ends, on all hosts, with a line that says who is to blame.

Every process counts its steps forward ("beats") in the same order. A thread of each tells the
coordinator's key-value store once a second how far its process is; the first process compares.
Who has fewer beats than the others is behind: they wait for it in a collective, which no exception
would ever end. Who says nothing at all is dead or stopped. The verdict goes back through the same
store, every process prints it and leaves at once, without the barriers of an orderly end.

A process on its own is watched too, with more patience: nobody waits for it.
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

PERIOD_S = 1.0
# Its thread speaks every second; only a process that is killed, stopped or cut off is silent for
# this long. Well below the runtime's own limit, whose end is a crash with a stack trace.
SILENCE_S = 30.0
# How much longer than the time-out compilation, saving and the like may take ...
_PAUSED_BEHIND, _PAUSED_TOGETHER = 10.0, 60.0
# ... and the steps of a process on its own, and of any before the first step's time is known.
_PATIENCE = 10.0
# A step may always take so many times what the longest of the latest took.
_SLOWER = 4.0
_STATUS, _VERDICT = "maven_jax/status/", "maven_jax/verdict/"
CONTINUES = "every process ends; the same command continues from the last checkpoint"


@dataclasses.dataclass
class Status:
    """How far a process is.

    Attributes:
        beats: steps forward of any kind; comparable between processes.
        step: training steps taken.
        doing: what it is at, for the message.
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
        client: the key-value store that all processes share; None for a process on its own.
        process: index of this process.
        count: number of processes.
    """

    def __init__(self, timeout_s: float, client: Any = None, process: int = 0, count: int = 1):
        self.process, self.count = process, count
        self._timeout_s, self._client = timeout_s, client
        self._status = Status(0, 0, "starting", True)
        self._last_beat = self._last_answer = time.monotonic()
        self._took: collections.deque[float] = collections.deque(maxlen=16)
        self._court = Court(timeout_s, count)
        self._stopped, self._ending = threading.Event(), threading.Lock()
        self._last_words: LastWords | None = None

    def start(self) -> None:
        """Begins to watch."""
        if self._client is not None:
            self._last_words = LastWords(
                f"[process {self.process}] maven-jax: ended without notice: killed"
                + (", or process 0 is gone" if self.process else "")
                + f"; {CONTINUES}"
            )
        threads = [self._judge] if self._client is None else [self._judge, self._talk]
        for thread in threads:
            threading.Thread(target=thread, daemon=True).start()

    def stop(self) -> None:
        """Ends watching; to be called when all processes are done."""
        self._stopped.set()
        if self._last_words is not None:
            self._last_words.withdraw()

    def beat(self, step: int, doing: str) -> None:
        """Notes progress; all processes have to call it in the same order.

        Args:
            step: training steps taken so far.
            doing: what comes now.
        """
        self._move(step, doing, False)

    def pause(self, doing: str) -> None:
        """Work of unknown length follows, until the next beat."""
        self._move(self._status.step, doing, True)

    @contextlib.contextmanager
    def paused(self, doing: str) -> Iterator[None]:
        """For work of unknown length: compiling, saving, writing."""
        self.pause(doing)
        yield
        self._move(self._status.step, f"after {doing}", False)

    def _move(self, step: int, doing: str, paused: bool) -> None:
        now = time.monotonic()
        if not self._status.paused:
            self._took.append(now - self._last_beat)
        self._last_beat = now
        self._status = Status(self._status.beats + 1, step, doing, paused)

    def leave(self, message: str, code: int, others: str = "") -> NoReturn:
        """Ends this process at once, and tells the others why, so that they end too.

        Args:
            message: why, in one line.
            code: exit code.
            others: what the others print; nothing for `message` with this process's number.
        """
        if self._client is not None:
            with contextlib.suppress(Exception):  # an earlier verdict stays
                others = others or f"process {self.process} ended: {message}"
                told = {"message": others, "code": code}
                self._client.key_value_set(f"{_VERDICT}first", json.dumps(told))
        self._end(message, code)

    def _end(self, message: str, code: int) -> NoReturn:
        with self._ending:  # the first thread that comes here speaks; it never lets go
            name = f"[process {self.process}] " if self.count > 1 else ""
            # The main thread may find its collective broken now, and go on for a line or two.
            progress.silence()
            sys.stdout.flush()
            print(f"{name}maven-jax: {message}", file=sys.stderr, flush=True)
            if self._last_words is not None:
                self._last_words.withdraw()
            if self.process == 0 and self.count > 1:
                # The store of the verdict ends with this process: the others have to read it first.
                time.sleep(3 * PERIOD_S)
            os._exit(code)

    def _judge(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(PERIOD_S):
            now = time.monotonic()
            if now - before > SILENCE_S / 3:
                # This process itself was stopped: what it knows of the others is as old.
                self._last_beat += now - before
                self._last_answer += now - before
                self._court.forget()
            before = now
            if self.process > 0:
                if now - self._last_answer > SILENCE_S:
                    self._end(
                        f"process 0 has not answered for {SILENCE_S:.0f} s (killed, stopped or cut "
                        f"off) while this one was {self._status}; {CONTINUES}",
                        1,
                    )
                continue
            self._court.hear(0, self._status, now)
            verdict = self._court.verdict(max(self._took, default=None), now)
            if verdict is not None:
                self.leave(verdict, 1, verdict)

    def _talk(self) -> None:
        """Tells the others about this process, and asks for news."""
        told = 0
        while not self._stopped.wait(PERIOD_S):
            told += 1
            mine = {"told": told, "status": dataclasses.asdict(self._status)}
            try:
                self._client.key_value_set(f"{_STATUS}{self.process}", json.dumps(mine), True)
                if self.process == 0:
                    for key, text in self._client.key_value_dir_get(_STATUS):
                        self._court.read(int(key.rsplit("/", 1)[1]), json.loads(text))
                news = self._client.key_value_dir_get(_VERDICT)
            except Exception:
                continue  # no answer: that is counted elsewhere
            self._last_answer = time.monotonic()
            for _, text in news:
                told = json.loads(text)
                self._end(told["message"], told["code"])


class Court:
    """Decides from what all processes say whether one of them is behind or dead.

    Args:
        timeout_s: see `Watchdog`.
        count: number of processes.
    """

    def __init__(self, timeout_s: float, count: int):
        self._timeout_s, self._count = timeout_s, count
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Starts anew: nothing is known of how long the others have been where they are."""
        with self._lock:
            self._status: dict[int, Status] = {}
            self._told: dict[int, int] = {}
            self._heard: dict[int, float] = {}
            self._since: dict[int, float] = {}
            self._behind_since: dict[int, float] = {}

    def read(self, process: int, said: dict[str, Any]) -> None:
        """Takes what another process has put into the store; old news count for nothing."""
        if process > 0 and self._told.get(process) != said["told"]:
            self._told[process] = said["told"]
            self.hear(process, Status(**said["status"]), time.monotonic())

    def hear(self, process: int, status: Status, now: float) -> None:
        """Takes a process's own word on how far it is."""
        with self._lock:
            known = self._status.get(process)
            if known is None or known.beats != status.beats:
                self._since[process] = now
                self._behind_since.pop(process, None)
            self._status[process], self._heard[process] = status, now

    def verdict(self, step_s: float | None, now: float) -> str | None:
        """What is wrong, in a line; None if nothing is.

        Args:
            step_s: what the longest of the latest steps took; None if none was taken yet.
            now: seconds of the clock that `hear` was given.
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
        last = min(self._status[i].beats for i in behind)
        late = [i for i in behind if self._status[i].beats == last]
        for i in late:
            since = self._behind_since.setdefault(i, now)
            limit = max(self._timeout_s, _SLOWER * (step_s or 0.0))
            if self._status[i].paused:
                limit = _PAUSED_BEHIND * self._timeout_s
            if now - since > limit:
                where = "; ".join(f"{j} is {self._status[j]}" for j in late)
                return (
                    f"no progress for {limit:.0f} s: {_are(late)} behind, the others wait: {where}"
                    f"; {CONTINUES} (--stall-timeout sets the time)"
                )
        return None

    def _together(self, step_s: float | None, now: float) -> str | None:
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
    shown = ", ".join(str(i) for i in processes[:8])
    more = f" and {len(processes) - 8} more" if len(processes) > 8 else ""
    return f"processes {shown}{more} are"


class LastWords:
    """Has a shell wait for this process to end, and say something then unless told otherwise.

    Args:
        message: what it says.
    """

    def __init__(self, message: str):
        self._shell: subprocess.Popen | None = None
        with contextlib.suppress(OSError):  # without a shell, without the line
            self._shell = subprocess.Popen(
                # `read` fails when the other end of the pipe is closed without a word.
                ["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', message],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                close_fds=True,
            )

    def withdraw(self) -> None:
        """Makes it say nothing: the end is an orderly one, or has been explained."""
        if self._shell is None:
            return
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):
            self._shell.stdin.write(b"\n")
            self._shell.stdin.close()
        self._shell.wait()
        self._shell = None
