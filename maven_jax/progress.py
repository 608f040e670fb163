"""Progress of long jobs: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from maven_jax.errors import printable

# Characters of a complaint.
_LONGEST = 4000


def _cut(line: str) -> str:
    """The line, or its beginning if it is so long that it must quote a file."""
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


class _Console(Console):
    """Rich's, for text from anywhere: nothing in it is markup, and nothing controls the terminal.

    Cells of tables come through here as well as lines.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as it is shown; only line breaks are kept."""
        lines = (printable(_cut(line)) for line in text.split("\n"))
        return super().render_str("\n".join(lines), **options)


# On a terminal tables are as wide as it is; in a file or a pipe, as this project's text.
console = _Console(
    soft_wrap=True,
    highlight=False,
    markup=False,
    emoji=False,
    width=None if sys.stdout.isatty() else 100,
)


def silence() -> None:
    """Turns off all that this module prints: of several processes, only the first prints."""
    console.quiet = True


def say(message: str) -> None:
    """Prints a message now, also above a live bar."""
    console.print(message)
    sys.stdout.flush()


def complain(command: str, message: str) -> None:
    """Prints on stderr, as one line, why a command could not do something."""
    print(f"maven-jax {command}: {printable(_cut(message))}", file=sys.stderr, flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints that `what` begins, and at its end how long it took."""
    say(f"{what} ...")
    began = time.monotonic()
    yield
    say(f"{what} took {time.monotonic() - began:.1f} s")


def format_duration(seconds: float | int) -> str:
    """`75 -> "1:15"`, `3675 -> "1:01:15"`."""
    minutes, s = divmod(round(max(seconds, 0.0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class Meter:
    """Counts finished work and shows the rate and the remaining time.

    Attributes:
        total: amount of work in `unit`.
        done: amount finished, including what an earlier run had finished (`initial`).
    """

    def __init__(
        self,
        label: str,
        total: float | int,
        unit: str,
        initial: float | int = 0,
        every_s: float = 10.0,
    ):
        self.label, self.total, self.unit, self.done = label, total, unit, initial
        self._initial, self._every_s = initial, every_s
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(label, total=total, completed=int(initial), rate="")
            self._bar.start()

    @property
    def rate(self) -> float:
        """Units per second of this run."""
        return (self.done - self._initial) / max(time.monotonic() - self._start, 1e-9)

    def line(self) -> str:
        """What `advance` prints where there is no live bar."""
        remaining_s = (self.total - self.done) / self.rate if self.rate > 0 else 0.0
        return (
            f"{self.label}: {self.done:,.0f}/{self.total:,.0f} {self.unit}, "
            f"{self.rate:,.1f} {self.unit}/s, {format_duration(remaining_s)} left"
        )

    def advance(self, amount: float | int = 1, note: str = "") -> None:
        """Counts finished work; updates the bar, or prints a line every `every_s` seconds."""
        self.done += amount
        if self._bar is not None:
            rate = f"{self.rate:,.1f} {self.unit}/s {note}"
            self._bar.update(self._task, completed=self.done, rate=rate)
        elif time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            say(self.line() + (f" ({note})" if note else ""))

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def meter(label: str, total: float | int, unit: str, initial: float | int = 0) -> Iterator[Meter]:
    """A `Meter` for the block; prints at its end how much was done in how much time."""
    m = Meter(label, total, unit, initial)
    try:
        yield m
    finally:
        m.close()
    took = time.monotonic() - m._start
    say(f"{label}: {m.done:,.0f} {unit} in {format_duration(took)} ({m.rate:,.1f} {unit}/s)")
