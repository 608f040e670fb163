"""What float32 may be off by, taken from its precision, and float64 where nothing may be off.

A sum of n terms in float32 is off by at most n eps times the sum of their absolute values, in
whatever order a processor adds them up. Mistakes are off by much more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

EPS = float(np.finfo(np.float32).eps)


def assert_close(actual: Any, expected: Any, *, terms: int = 300) -> None:
    """Equal but for float32's sums of so many terms, each of the size of the largest value or 1."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    size = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=terms * EPS * size)


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """All that is computed in `jnp.float32` by name is computed in float64."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(jnp, "float32", jnp.float64)
        yield
