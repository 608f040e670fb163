"""Where numbers of a run go: JSON lines for programs, TensorBoard events for people, trackers."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven_jax.errors import UserError, disk_refusal, listing
from maven_jax.files import write_file
from maven_jax.inputs import mismatch, parse_json, read_file
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runs.damaged import set_aside
from maven_jax.runs.trackers import Tracker, trackers_of
from maven_jax.runtime import hosts

if TYPE_CHECKING:
    from maven_jax.runs.event_file import EventFile

# TensorBoard's files are flushed to the disk, which is too slow for every step.
_FLUSH_S = 10
METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Appends rows to `metrics.jsonl` and TensorBoard events.

    A run that continues from step s takes the steps after s again. Their old rows are removed, so
    that the file reads as if the run had never stopped.

    Args:
        workdir: folder of the run.
        resume_step: last step that the restored state has taken.
        trackers: get the same numbers.
    """

    def __init__(self, workdir: Path, resume_step: int, trackers: Sequence[Tracker] = ()):
        self._workdir = workdir
        path = workdir / METRICS_FILE
        earlier = [row for row in read_metrics(workdir) if row["step"] <= resume_step]
        with self._disk_errors():
            if _read_rows(path)[1]:  # what is wrong in it may be worth a look
                copy = set_aside(workdir, METRICS_FILE)
                write_file(copy, path.read_bytes())
                say(f"{path}: as it was it is in {copy}")
            write_file(path, "".join(json.dumps(row) + "\n" for row in earlier).encode())
            self._file = path.open("a")
        self._resume_step, self._trackers = resume_step, trackers
        self._events: EventFile | None = None

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """One row `{"step", "kind", **values}`; kind is `train` or a split.

        TensorBoard and the trackers get the values that are numbers.

        Raises:
            UserError: the disk takes no more.
        """
        with self._disk_errors():
            # JSON has no NaN: a value that does not exist is null.
            row = {k: v if _exists(v) else None for k, v in values.items()}
            self._file.write(json.dumps({"step": step, "kind": kind, **row}) + "\n")
            self._file.flush()
            if self._events is None:
                self._events = self._open_events()
            numbers = {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
            for name, value in numbers.items():
                self._events.add(step, name, value)
            if time.monotonic() > self._flushed + _FLUSH_S:
                self._events.flush()
                self._flushed = time.monotonic()
        for tracker in self._trackers:
            tracker.add(step, numbers)

    def close(self) -> None:
        """Closes the files; an error that is being raised is not hidden by another."""
        crashing = sys.exc_info()[0] is not None
        for tracker in self._trackers:
            tracker.close()
        try:
            with self._disk_errors(), contextlib.closing(self._file):
                if self._events is not None:
                    self._events.close()
        except UserError:
            if not crashing:
                raise

    def _open_events(self) -> EventFile:
        # Imported here to start faster: where PyTorch is installed, tensorboardX imports it.
        from maven_jax.runs.event_file import EventFile

        self._flushed = time.monotonic()
        return EventFile(self._workdir / "tensorboard", self._resume_step + 1)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns a disk that takes no more into one line."""
        try:
            yield
        except OSError as error:
            reason = disk_refusal(error)
            if reason is None:
                raise
            raise UserError(
                f"{self._workdir}: {reason}: the metrics could not be written; make room, "
                "and the same command continues"
            ) from error


def _exists(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class SilentWriter:
    """In place of `MetricWriter` in the processes that write nothing."""

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Drops the row."""

    def close(self) -> None:
        """Has nothing to close."""


def open_writer(config: Config, workdir: Path, start: int) -> MetricWriter | SilentWriter:
    """What takes the numbers of this process from step `start` on, as the recipe says."""
    if not hosts.is_writer():
        return SilentWriter()
    return MetricWriter(workdir, start, trackers_of(config, workdir))


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The whole rows of `metrics.jsonl`; says which lines are damaged.

    A last line that a killed run left half written is left out without a word.

    Raises:
        UserError: it is no regular file, or cannot be read.
    """
    rows, damaged = _read_rows(workdir / METRICS_FILE)
    if damaged:
        lines = listing([str(number) for number in damaged])
        say(f"{workdir / METRICS_FILE}: damaged, without line {lines}; the other rows are kept")
    return rows


def _read_rows(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The whole rows, and the numbers of the lines that are none."""
    rows, damaged = [], []
    if not path.exists():
        return rows, damaged
    *lines, _ = read_file(path).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line)
            if fault := mismatch(row, {"step": int, "kind": str}):
                raise ValueError(fault)
            rows.append(row)
        except ValueError:
            damaged.append(number)
    return rows, damaged
