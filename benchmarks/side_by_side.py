"""Ours and a peer's work timed in turns, in one process, with what describes the machine."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

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
        size: what grows with --growth and how large it is here, `{"T": 300}`; empty for nothing.
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
    size: dict[str, int] = field(default_factory=dict)
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
    numbers = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            numbers[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return numbers


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
    size: dict[str, int] | None = None,
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
        size=size or {},
        machine=described,
        versions=versions(),
    )


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The k of the curve a size^k that fits best, on logarithmic scales.

    >>> round(exponent([10, 20, 40], [0.1, 0.4, 1.6]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def add_growth(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Fits seconds = a size^k to the rows of each claim that was measured at several sizes.

    Args:
        rows: `Row.to_json`; a claim's first one gets `facts["growth"]`: the exponent of ours and
            of the peer's (None without one), what it is of, and the sizes.

    Returns:
        A line for each such claim.
    """
    lines = []
    claims: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        for what in row["size"]:
            claims.setdefault((row["name"].split("/")[0], what), []).append(row)
    for (name, what), measured in claims.items():
        sizes = [row["size"][what] for row in measured]
        if len(set(sizes)) < 2:
            continue
        ours = exponent(sizes, [row["ours_s"] for row in measured])
        beaten = [row["peer_s"] for row in measured]
        peer = None if None in beaten else exponent(sizes, beaten)
        growth = {"ours": ours, "peer": peer, "of": what, "sizes": sizes}
        measured[0]["facts"]["growth"] = growth
        beside = "" if peer is None else f", the peer's as {what}^{peer:.2f}"
        at = ", ".join(map(str, sorted(sizes)))
        lines.append(f"{name}: seconds grow as {what}^{ours:.2f}{beside} ({what} = {at})")
    return lines


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


def product_flops(jaxpr: Any) -> float:
    """FLOPs of a traced function's matrix products and convolutions.

    What a scan does counts as often as it is done; `counted_flops`, XLA's own count, takes it once.

    Args:
        jaxpr: `jax.jit(f).trace(*arguments).jaxpr`.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, equation.params
        if name == "dot_general":
            (summed, _), _ = given["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in summed)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            outputs = kernel.shape[given["dimension_numbers"].rhs_spec[0]]
            total += 2 * equation.outvars[0].aval.size * kernel.size / outputs
        inner = [v for p in given.values() for v in (p if isinstance(p, tuple | list) else (p,))]
        inner = [getattr(v, "jaxpr", v) for v in inner]
        times = given["length"] if name == "scan" else 1
        total += times * sum(product_flops(v) for v in inner if hasattr(v, "eqns"))
    return total
