"""The kernels that this GPU takes beside the formulas, on random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from maven_jax.kernels import causal_conv, fused_attention, lstm, lstm_triton
from maven_jax.kernels.device import platform

# bfloat16 rounds to 1 in 256; sums of many such terms stay below.
TOLERANCE = 0.015


def differences() -> Iterator[tuple[str, float]]:
    """Gives each kernel's name and the largest ‖kernel − formula‖ / ‖formula‖.

    Kernels compute in bfloat16, formulas in float32; values and gradients are compared. Kernels
    that the device does not take are left out.
    """
    if platform() == "gpu":
        query, key = (jnp.zeros((1, 300, 4, 64), jnp.bfloat16) for _ in range(2))
        if fused_attention.serves(query, key):
            yield "attention", float(np.max([_attention(biased) for biased in (False, True)]))
        if lstm_triton.serves(jnp.zeros((2, 256, 1024), jnp.bfloat16)):
            yield "LSTM", _lstm()
        yield "causal convolution", _convolution()


def difference(
    kernel: Callable[..., Array], formula: Callable[..., Array], arguments: Sequence[Array]
) -> float:
    """The largest relative difference of values and gradients; NaN if either is not finite."""

    def run(function: Callable[..., Array], dtype: Any) -> tuple[Array, ...]:
        y, back = jax.vjp(function, *(x.astype(dtype) for x in arguments))
        return y, *back(jnp.cos(y.astype(jnp.float32) + jnp.arange(y.shape[-1])).astype(y.dtype))

    with jax.default_matmul_precision("float32"):
        expected = jax.jit(lambda: run(formula, jnp.float32))()
    worst = 0.0
    for a, b in zip(jax.jit(lambda: run(kernel, jnp.bfloat16))(), expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        # Unlike Python's max, it hands NaN on.
        worst = float(np.maximum(worst, np.linalg.norm(a - b) / np.linalg.norm(b)))
    return worst


def _draw(*shape: int, seed: int, scale: float = 1.0) -> Array:
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return jnp.asarray(values, jnp.bfloat16)


def _attention(biased: bool) -> float:
    b, frames, h, d = 3, 301, 4, 64
    arguments = [_draw(b, frames, h, d, seed=seed) for seed in range(3)]
    arguments += [_draw(h, frames, frames, seed=3)] if biased else []
    mask = jnp.arange(frames) < jnp.array([frames, 200, 1])[:, None]

    def kernel(query: Array, key: Array, value: Array, bias: Array | None = None) -> Array:
        return fused_attention.attend(query, key, value, mask, bias, valid_first=True)

    def formula(query: Array, key: Array, value: Array, bias: Array | None = None) -> Array:
        return fused_attention.attend_again(query, key, value, mask, bias, None)

    return difference(kernel, formula, arguments)


def _lstm() -> float:
    reverse, b, t, h = (False, True), 40, 16, 256
    n = len(reverse)
    hidden, cell = (_draw(n, b, h, seed=seed).astype(jnp.float32) for seed in range(2))
    mask = jnp.asarray(np.random.default_rng(2).random((b, t)) < 0.7)

    def run(frames: Array, recurrent: Array) -> Array:
        start = list(zip(hidden, cell))
        return jnp.stack(lstm.run_lstms(reverse, list(frames), list(recurrent), start, mask))

    # The scan takes float32.
    weights = _draw(n, h, 4 * h, seed=3, scale=h**-0.5)
    return difference(run, run, [_draw(n, b, t, 4 * h, seed=4), weights])


def _convolution() -> float:
    def kernel(x: Array, taps: Array) -> Array:
        return causal_conv.causal_conv(x, taps, 8)

    def formula(x: Array, taps: Array) -> Array:
        return causal_conv.direct(x, taps, 8)

    return difference(
        kernel, formula, [_draw(4, 300, 256, seed=0), _draw(5, 256, 128, seed=1, scale=0.03)]
    )
