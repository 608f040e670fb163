"""CCC of two tracks on the device, against NumPy's two passes in float64, in turns.

maven-jax bench ccc
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from benchmarks.side_by_side import Row, compare
from maven_jax.concordance import CccState

SIZES = (3_000_000, 300_000, 30_000_000)


def two_passes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(2,) ccc of (n, 2) tracks."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    mx, my = x.mean(0), y.mean(0)
    covariance = ((x - mx) * (y - my)).mean(0)
    return 2 * covariance / (x.var(0) + y.var(0) + (mx - my) ** 2)


def at_length(name: str, frames: int, repeats: int, goal: float | None) -> Row:
    """One row."""
    rng = np.random.default_rng(0)
    ours_of = jax.jit(lambda x, y, mask: CccState.of(x, y, mask).compute().ccc)
    y = (0.9 + 0.01 * rng.standard_normal((frames, 2))).astype(np.float32)
    x = (y + 0.003 * rng.standard_normal((frames, 2))).astype(np.float32)
    placed = jax.device_put((x, y, np.ones(frames, bool)))
    difference = float(np.abs(np.asarray(ours_of(*placed)) - two_passes(x, y)).max())
    assert difference < 1e-6, f"ccc differs by {difference:.1e}"
    return compare(
        name,
        f"ccc of {frames:,} frames x 2",
        lambda: jax.block_until_ready(ours_of(*placed)),
        lambda: two_passes(x, y),
        repeats=repeats,
        peer_name="NumPy, two passes in float64",
        goal=goal,
        size={"frames": frames},
        difference_of_outputs=difference,
    )


def measure(name: str, repeats: int, growth: bool) -> Iterator[Row]:
    """The rows of the claim; with `growth`, at other lengths too."""
    yield at_length(name, SIZES[0], repeats, 3.0)
    for frames in SIZES[1:] if growth else ():
        yield at_length(f"{name}/{frames}", frames, repeats, None)
