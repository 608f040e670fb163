"""A recording of some steps of a training run, and the table of what took long in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from maven_jax.progress import say
from maven_jax.runtime import hosts, trace
from maven_jax.runtime.watchdog import Watchdog

# Steps before a recording: the first ones compile, and fill caches and queues.
WARM_UP_STEPS = 10


def steps_until(step: int, total_steps: int, stops_every: Sequence[int]) -> int:
    """Steps from `step` until the loop has something else to do.

    >>> steps_until(7, 100, (10, 4))
    1
    """
    return min(total_steps - step, *(every - step % every for every in stops_every))


def steps_to_record(start: int, steps: int, total_steps: int, stops_every: Sequence[int]) -> range:
    """The steps to record: behind the warm-up, with no evaluation or checkpoint among them.

    If fewer fit between two of these, they are as many as fit; none in a run that is too short.

    >>> steps_to_record(0, 5, 100, (30, 12))  # not 10 to 15
    range(12, 17)
    """
    first = start + WARM_UP_STEPS
    if first >= total_steps:
        return range(0)
    begins = {first, first + steps_until(first, total_steps, stops_every)} - {total_steps}
    lengths = {b: min(steps, steps_until(b, total_steps, stops_every)) for b in begins}
    begin = max(sorted(lengths), key=lengths.__getitem__)
    return range(begin, begin + lengths[begin])


class Profile:
    """Records steps of the loop once; a context that drops a recording that was not finished.

    Only the process that writes the run's files records and prints. It waits for the devices before
    the first and after the last of the steps; what they compute stays the same.

    Args:
        folder: for the recording.
        steps: to record; empty for never.
        watchdog: is told that writing takes a while.
    """

    def __init__(self, folder: Path, steps: range, watchdog: Watchdog):
        self._folder, self._steps, self._watchdog = folder, steps, watchdog
        self._records = bool(steps) and hosts.is_writer()
        self._on = False

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            trace.stop()
            self._on = False

    def until(self, step: int, most: int) -> int:
        """`most` steps, or as many as there are before the recording begins or ends."""
        ahead = [at - step for at in (self._steps.start, self._steps.stop) if at > step]
        return min([most, *ahead])

    def before(self, step: int, state: Any) -> None:
        """Begins, if `step` is the first one."""
        if self._records and step == self._steps.start:
            jax.block_until_ready(state)
            trace.start(self._folder)
            self._on = True

    def after(self, step: int, done: Any) -> None:
        """Ends, if `step` steps are done with the last one; prints what it shows.

        Args:
            step: the number of steps that were begun.
            done: arrays that are there when these are done.
        """
        if not self._steps or step != self._steps.stop:
            return
        jax.block_until_ready(done)
        with self._watchdog.paused("writing the profile"):  # on every process, as all beats
            if not self._on:
                return
            trace.stop()
            self._on = False
            for line in trace.summarize(self._folder, len(self._steps)).lines():
                say(line)
        say(
            f"profile of steps {self._steps.start + 1} to {self._steps.stop}: tensorboard "
            f"--logdir {self._folder} (with its profile plugin), or open the newest "
            "*.trace.json.gz in it at https://ui.perfetto.dev"
        )
