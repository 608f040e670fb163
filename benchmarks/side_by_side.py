"""Ours and a peer's work timed in turns, in one process, with what describes the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax

Work = Callable[[], Any]
PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers", "numpy", "array_record", "grain")


@dataclass(frozen=True)
class Row:
    """One measured claim.

    Attributes:
        name: of the claim, `rjcma`; with `/` and a size where it is measured at several.
        work: what was done, in words.
        peer: what it is compared with; "" for none.
        ours_s: median seconds of one unit of work.
        peer_s: the peer's; None without one.
        ratio: peer_s / ours_s; None without a peer.
        spread: (largest - smallest) / median, of the worse of both.
        goal: what `ratio` was to reach; None for none.
        facts: further numbers, named with their units.
        machine: see `machine`.
        versions: package -> version.
    """

    name: str
    work: str
    peer: str
    ours_s: float
    peer_s: float | None
    spread: float
    goal: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return None if self.peer_s is None else self.peer_s / self.ours_s

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def machine() -> str:
    """The processor, its cores, and the devices that JAX sees."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":")[1].strip() if lines else name
    device = jax.devices()[0]
    return (
        f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; "
        f"{jax.device_count()} x {device.platform} ({device.device_kind})"
    )


def versions() -> dict[str, str]:
    """Of Python and of those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def in_turns(
    works: Sequence[Work], *, repeats: int, warm_up: int = 2, inner: int = 1
) -> list[list[float]]:
    """Seconds of each of `repeats` calls of each work, taken in turns.

    Taking turns lets a slow minute of the machine meet all of them. Each work returns when its
    results are there (`jax.block_until_ready`), and is called `inner` times in a row per reading.
    """
    for work in works:
        for _ in range(warm_up):
            work()
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, taken in zip(works, seconds):
            began = time.perf_counter()
            for _ in range(inner):
                work()
            taken.append((time.perf_counter() - began) / inner)
    return seconds


def compare(
    name: str,
    work: str,
    ours: Work,
    peer: Work | None,
    *,
    repeats: int,
    peer_name: str = "",
    goal: float | None = None,
    inner: int = 1,
    **facts: Any,
) -> Row:
    """Times both in turns; medians and spread."""
    described = machine()
    works = [ours] if peer is None else [ours, peer]
    seconds = in_turns(works, repeats=repeats, inner=inner)
    medians = [statistics.median(s) for s in seconds]
    spread = max((max(s) - min(s)) / m for s, m in zip(seconds, medians))
    return Row(
        name=name,
        work=work,
        peer=peer_name,
        ours_s=medians[0],
        peer_s=medians[1] if peer is not None else None,
        spread=spread,
        goal=goal,
        facts=facts,
        machine=described,
        versions=versions(),
    )


def matmul_peak(repeats: int = 7, size: int = 2048) -> float:
    """FLOP/s of a square float32 matrix product on the first device, the best of `repeats`."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    multiply = jax.jit(lambda x, y: x @ y)
    seconds = in_turns([lambda: multiply(a, a).block_until_ready()], repeats=repeats)[0]
    return 2 * size**3 / min(seconds)


def counted_flops(compiled: Any) -> float:
    """FLOPs of a compiled program, as XLA counts them."""
    analysis = compiled.cost_analysis()
    return float((analysis[0] if isinstance(analysis, list) else analysis)["flops"])
