"""Running frozen encoders: compiled once per shape, data-parallel over the local devices."""

from __future__ import annotations

import collections
import contextlib
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from maven_jax.progress import say

_BEGINNING = threading.Lock()


class DeviceTime:
    """How long a device worked, computation by computation.

    A computation counts from its start, or from the end of the one before it, until its result is
    ready. A thread waits for the results, so the count does not depend on when they are read.
    Computations are counted in the order in which they began, which is the device's own.
    """

    def __init__(self) -> None:
        self._begun: collections.deque[tuple[str, float, Any]] = collections.deque()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._changed = threading.Condition()
        self._until = 0.0

    def count(self, name: str, began: float, result: Any) -> None:
        """Counts a computation.

        Args:
            name: what to count it as.
            began: `time.monotonic()` when it was begun.
            result: of the computation, with `block_until_ready`.
        """
        with self._changed:
            self._begun.append((name, began, result))
            if len(self._begun) == 1:  # no thread is waiting for results
                threading.Thread(target=self._wait, name="device time").start()

    def seconds(self) -> dict[str, float]:
        """Name → seconds; waits until all computations have ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._begun)
            return dict(self._seconds)

    def _wait(self) -> None:
        while True:
            name, began, result = self._begun[0]
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # raised where it is read
                result.block_until_ready()
            del result
            with self._changed:
                now = time.monotonic()
                self._seconds[name] += now - max(began, self._until)
                self._until = now
                self._begun.popleft()
                if not self._begun:
                    self._changed.notify_all()
                    return


class Clock:
    """Adds up where the time goes: `with clock("decode"): …`, then `clock.seconds["decode"]`.

    An inner `with` interrupts the outer one, so nothing is counted twice. Each thread counts for
    itself: together they may count more seconds than pass.

    Attributes:
        seconds: name → seconds of all threads.
        device: the time of the devices.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.device = DeviceTime()
        self._local = threading.local()
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Counts the time of the block as `what`."""
        self._switch()
        self._local.running.append(what)
        try:
            yield
        finally:
            self._switch()
            self._local.running.pop()

    def _switch(self) -> None:
        local, now = self._local, time.monotonic()
        if not hasattr(local, "running"):
            local.running = []
        if local.running:
            with self._lock:
                self.seconds[local.running[-1]] += now - local.since
        local.since = now


def buckets(size: int, count: int, multiple: int = 1) -> tuple[int, ...]:
    """Up to `count` sizes ending in `size`, each half of the next, rounded up to `multiple`.

    Inputs are padded to one of them, so few programs are compiled and little work is wasted:
    `buckets(64, 3)` is `(16, 32, 64)`.
    """
    sizes = {-(-(size >> i) // multiple) * multiple for i in range(count) if size >> i}
    return tuple(sorted(sizes))


def bucket_of(n: int, sizes: Sequence[int]) -> int:
    """The smallest of the increasing `sizes` that holds `n`."""
    return next(size for size in sizes if size >= n)


class DeviceFunction:
    """`function(params, *inputs)` on all local devices, the leading axis of inputs split over them.

    Every new combination of input shapes compiles a program, with a line on screen.

    Attributes:
        device_count: local devices; the leading axis of every input is a multiple of it.
        compile_s: seconds spent compiling so far.
    """

    def __init__(self, name: str, function: Callable[..., jax.Array], params: Any) -> None:
        devices = jax.local_devices()
        mesh = jax.make_mesh(
            (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
        )
        self.device_count = len(devices)
        self.compile_s = 0.0
        self._name = name
        self._split = NamedSharding(mesh, PartitionSpec("data"))
        self._params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        self._function = jax.jit(function)
        self._compiled: dict[tuple, Callable[..., jax.Array]] = {}

    def __call__(self, *inputs: np.ndarray, clock: Clock | None = None) -> jax.Array:
        """Starts the computation; the result is still on the device (and may not be ready).

        Args:
            inputs: with leading axes of one length, a multiple of `device_count`.
            clock: takes the time spent: the device's, and the compiler's as "compile".
        """
        clock = clock or Clock()
        placed = jax.device_put(inputs, self._split)
        key = tuple((x.shape, str(x.dtype)) for x in inputs)
        # One thread at a time: all devices must begin computations in the same order.
        with _BEGINNING:
            if key not in self._compiled:
                self._compiled[key] = self._compile(placed, clock)
            began = time.monotonic()
            result = self._compiled[key](self._params, *placed)
            clock.device.count(self._name, began, result)
        return result

    def _compile(self, placed: tuple[jax.Array, ...], clock: Clock) -> Callable[..., jax.Array]:
        start = time.monotonic()
        with clock("compile"):
            compiled = self._function.lower(self._params, *placed).compile()
        took = time.monotonic() - start
        self.compile_s += took
        shapes = ", ".join("×".join(map(str, x.shape)) for x in placed)
        say(f"compiled the {self._name} encoder for {shapes} in {took:.1f} s")
        return compiled


def pad_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """`x` (n, ...) with zero rows behind it, (rows, ...)."""
    if len(x) == rows:
        return x
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])


def peak_memory_mib() -> float:
    """The most memory that was resident in this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
