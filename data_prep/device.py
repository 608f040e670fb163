"""Running frozen encoders: compiled once per shape, data-parallel over the local devices."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from maven_jax.progress import say


class Clock:
    """Adds up where the time goes: `with clock("audio"): …`, then `clock.seconds["audio"]`.

    An inner `with` interrupts the outer one, so nothing is counted twice.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Counts the time of the block as `what`."""
        self._switch()
        self._running.append(what)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def _switch(self) -> None:
        now = time.monotonic()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def buckets(size: int, count: int, multiple: int = 1) -> tuple[int, ...]:
    """Up to `count` sizes ending in `size`, each half of the next, rounded up to `multiple`.

    Inputs are padded to one of them, so that few programs are compiled and little is wasted:
    `buckets(64, 3)` is `(16, 32, 64)`.
    """
    sizes = {-(-(size >> i) // multiple) * multiple for i in range(count) if size >> i}
    return tuple(sorted(sizes))


def bucket_of(n: int, sizes: Sequence[int]) -> int:
    """The smallest of the increasing `sizes` that holds `n`."""
    return next(size for size in sizes if size >= n)


class DeviceFunction:
    """`function(params, *inputs)` on all local devices, the leading axis of inputs split over them.

    A program is compiled for every new combination of input shapes, which is said on screen.

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

    def __call__(self, *inputs: np.ndarray) -> jax.Array:
        """Starts the computation; the result is still on the device (and may not be ready)."""
        placed = jax.device_put(inputs, self._split)
        key = tuple((x.shape, str(x.dtype)) for x in inputs)
        if key not in self._compiled:
            start = time.monotonic()
            self._compiled[key] = self._function.lower(self._params, *placed).compile()
            took = time.monotonic() - start
            self.compile_s += took
            shapes = ", ".join("×".join(map(str, x.shape)) for x in inputs)
            say(f"compiled the {self._name} encoder for {shapes} in {took:.1f} s")
        return self._compiled[key](self._params, *placed)


def pad_rows(x: np.ndarray, rows: int) -> np.ndarray:
    """`x` (n, ...) with zero rows behind it, (rows, ...)."""
    if len(x) == rows:
        return x
    return np.concatenate([x, np.zeros((rows - len(x), *x.shape[1:]), x.dtype)])
