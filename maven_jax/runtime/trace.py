"""What the devices do in a training step: a recording of some steps, and its longest operations."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

# Names of fused kernels can be as long as a page.
_NAME_LENGTH = 80


@dataclasses.dataclass(frozen=True)
class Operation:
    """A kernel or an operation of XLA.

    Attributes:
        name: as the device or XLA calls it.
        ms: milliseconds a step, without what runs inside it.
        times: how often a step runs it.
    """

    name: str
    ms: float
    times: float


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a recording holds, a step and a device.

    Attributes:
        steps: that were recorded.
        devices: that worked; 0 if only the host's threads were recorded, as on a processor.
        busy_ms: milliseconds in which a device worked. Of the host: the sum over its threads.
        kernels: kernels, or operations of XLA.
        longest: those that took longest, the longest first.
    """

    steps: int
    devices: int
    busy_ms: float
    kernels: float
    longest: tuple[Operation, ...]

    def lines(self) -> list[str]:
        """The table, for people."""
        if self.devices:
            head = f"device busy {self.busy_ms:.3f} ms a step, {self.kernels:.0f} kernels a step"
            head += f" (mean of {self.devices} devices)" if self.devices > 1 else ""
        else:
            head = (
                "no device in the trace, so XLA's operations on the host's threads: "
                f"{self.busy_ms:.3f} ms of all threads a step, {self.kernels:.0f} operations a step"
            )
        rows = [f"  {o.ms:10.3f} ms  x {o.times:6.1f}  {o.name}" for o in self.longest]
        return [f"{self.steps} steps: {head}", *rows]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def start(folder: Path) -> None:
    """Begins a recording of what this process's devices do; one at a time."""
    options = jax.profiler.ProfileOptions()
    # Python's calls would slow the steps that are measured.
    options.python_tracer_level = 0
    folder.mkdir(parents=True, exist_ok=True)
    jax.profiler.start_trace(folder, profiler_options=options)


def stop() -> None:
    """Ends the recording and writes its files."""
    jax.profiler.stop_trace()


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """Records what the block does; the block waits for its results itself."""
    start(folder)
    try:
        yield
    finally:
        stop()


def summarize(folder: Path, steps: int, longest: int = 10) -> Summary:
    """Reads the newest recording in a folder.

    Args:
        folder: that `start` was given.
        steps: that were recorded.
        longest: so many operations are named.

    Raises:
        FileNotFoundError: no recording.
    """
    files = sorted(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f"{folder}: no recording")
    return summary_of(jax.profiler.ProfileData.from_file(str(files[-1])).planes, steps, longest)


def summary_of(planes: Iterable[Any], steps: int, longest: int = 10) -> Summary:
    """As `summarize`, of the planes of a `jax.profiler.ProfileData`."""
    planes = list(planes)
    devices = [lines for plane in planes if (lines := _device_lines(plane))]
    if devices:
        busy_ns = sum(_covered(event for line in lines for event in line) for lines in devices)
        lines = [line for of_device in devices for line in of_device]
    else:
        lines = [_host_operations(line) for plane in planes for line in plane.lines]
        busy_ns = sum(_covered(line) for line in lines)
    took, times = defaultdict[str, float](float), Counter[str]()
    for line in lines:
        for name, own_ns in _own_times(line):
            took[name] += own_ns
            times[name] += 1
    share = steps * max(len(devices), 1)
    return Summary(
        steps=steps,
        devices=len(devices),
        busy_ms=busy_ns / 1e6 / share,
        kernels=sum(times.values()) / share,
        longest=tuple(
            Operation(name[:_NAME_LENGTH], ns / 1e6 / share, times[name] / share)
            for name, ns in sorted(took.items(), key=lambda of: -of[1])[:longest]
        ),
    )


# Name, start and end of an event.
_Event = tuple[str, float, float]


def _device_lines(plane: Any) -> list[list[_Event]]:
    """The kernels of each stream of a GPU, or the operations of a TPU; none for other planes."""
    if not plane.name.startswith("/device:"):
        return []
    lines = [line for line in plane.lines if line.name.startswith("Stream")]
    lines = lines or [line for line in plane.lines if line.name == "XLA Ops"]
    found = [
        [(e.name, e.start_ns, e.start_ns + e.duration_ns) for e in line.events] for line in lines
    ]
    return [line for line in found if line]


def _host_operations(line: Any) -> list[_Event]:
    """XLA's operations on a thread of the host."""
    return [
        (e.name, e.start_ns, e.start_ns + e.duration_ns)
        for e in line.events
        # Each has a second event that says only that it has ended.
        if not e.name.startswith("end: ") and any(name == "hlo_op" for name, _ in e.stats)
    ]


def _covered(events: Iterable[_Event]) -> float:
    """Time in which at least one of the events takes place."""
    total, until = 0.0, float("-inf")
    for _, begin, end in sorted(events, key=lambda event: event[1]):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def _own_times(events: Sequence[_Event]) -> list[tuple[str, float]]:
    """Each event's name and its time without the events that take place inside it."""
    ordered = sorted(events, key=lambda event: (event[1], -event[2]))
    own = [end - begin for _, begin, end in ordered]
    around: list[int] = []
    for i, (_, begin, end) in enumerate(ordered):
        while around and ordered[around[-1]][2] <= begin:
            around.pop()
        if around and end <= ordered[around[-1]][2]:
            own[around[-1]] -= end - begin
        around.append(i)
    return [(name, ns) for (name, _, _), ns in zip(ordered, own)]
