"""Causal convolutions over frames: one product on a GPU, fewer multiplications on a CPU.

On GPUs the frames that a filter sees are put side by side and multiplied once, in both gradients
too: their libraries have no fast kernel for the gradient of a dilated filter. The TPU's compiler
expects its own convolutions to take half of that time.

On one processor, four outputs of a filter with r taps need only r + 3 products, not 4 r, of sums
of inputs with sums of taps (Toom-Cook; Winograd's algorithm in Lavin & Gray, 2016): both
polynomials are evaluated at r + 3 points, multiplied there, and interpolated. Here the numbers are
matrices: for five taps 8 large matrix products replace 20, in both gradients too. The price is
passes over the data for the sums, and a digit of precision for the interpolation: about 1e-6 of the
largest value in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from maven_jax.kernels.device import on_one_processor, platform

# Outputs of one tile.
_TILE = 4
# Where both polynomials are evaluated, besides infinity: small numbers of few binary digits.
_POINTS = (0, 1, -1, 1 / 2, -2, 2, -1 / 2)
MOST_TAPS = len(_POINTS) + 2 - _TILE
# With fewer channels the products saved do not outweigh the sums.
_LEAST_WIDTH = 64


def causal_conv(
    x: Float[Array, "b t c"], kernel: Float[Array, "k c d"], dilation: int
) -> Float[Array, "b t d"]:
    """Returns the convolution over frames, which sees no later frame; zeros precede the first.

    Args:
        x: frames.
        kernel: of the same dtype; tap 0 is the earliest frame, tap k - 1 the present one.
        dilation: frames from one tap to the next.
    """
    taps, *widths = kernel.shape
    worth_it = 2 <= taps <= MOST_TAPS and min(widths) >= _LEAST_WIDTH
    # Several devices would exchange a gradient per product, of which there are more than taps.
    if on_one_processor() and worth_it and x.dtype == kernel.dtype == jnp.float32:
        return _tiled(x, kernel, dilation)
    if platform() == "gpu":
        return _gathered(x, kernel, dilation)
    return direct(x, kernel, dilation)


def direct(x: Array, kernel: Array, dilation: int) -> Array:
    """The formula, by XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(1,),
        padding=[((kernel.shape[0] - 1) * dilation, 0)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


def _seen(x: Array, taps: int, dilation: int) -> Array:
    """Returns the frames that the taps see at each frame, side by side, (b, t, taps · c)."""
    t, reach = x.shape[1], (taps - 1) * dilation
    x = jnp.pad(x, ((0, 0), (reach, 0), (0, 0)))
    return jnp.concatenate([x[:, i * dilation :][:, :t] for i in range(taps)], axis=-1)


def _seen_by(x: Array, taps: int, dilation: int) -> Array:
    """The reverse: of each tap the frame at which it sees a frame, (b, t, taps · c)."""
    t, reach = x.shape[1], (taps - 1) * dilation
    x = jnp.pad(x, ((0, 0), (0, reach), (0, 0)))
    return jnp.concatenate([x[:, i * dilation :][:, :t] for i in reversed(range(taps))], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gathered(x: Array, kernel: Array, dilation: int) -> Array:
    return _seen(x, len(kernel), dilation) @ kernel.reshape(-1, kernel.shape[-1])


def _gathered_forward(x: Array, kernel: Array, dilation: int):
    seen = _seen(x, len(kernel), dilation)
    return seen @ kernel.reshape(-1, kernel.shape[-1]), (seen, kernel)


def _gathered_backward(dilation: int, saved: tuple[Array, Array], gradient: Array):
    """Each gradient by one product too, which sums over taps before it rounds."""
    seen, kernel = saved
    taps = len(kernel)
    of_kernel = jnp.einsum("bti,bto->io", seen, gradient).reshape(kernel.shape)
    of_x = _seen_by(gradient, taps, dilation) @ kernel.mT.reshape(-1, kernel.shape[1])
    return of_x, of_kernel


_gathered.defvjp(_gathered_forward, _gathered_backward)


@functools.cache
def _matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (of inputs, of taps, of outputs), each with a row per product.

    A row of the inputs weighs the frames of two tiles: the one before, and the outputs' own.
    """
    products = _TILE + taps - 1

    def at_points(degree: int) -> np.ndarray:
        infinity = np.eye(degree)[-1:]
        powers = [[point**i for i in range(degree)] for point in _POINTS[: products - 1]]
        return np.concatenate([powers, infinity])

    outputs, filters = at_points(_TILE), at_points(taps)
    inputs = np.linalg.inv(at_points(products)).T
    # Rows of like size round alike; scaling by powers of two rounds nothing itself.
    norms = [np.linalg.norm(m, axis=1) for m in (inputs, filters, outputs)]
    size = np.cbrt(norms[0] * norms[1] * norms[2])
    input_scale, filter_scale = (2.0 ** np.round(np.log2(size / n)) for n in norms[:2])
    inputs *= input_scale[:, None]
    inputs[np.abs(inputs) < 1e-12] = 0
    out_of_reach = np.zeros((products, 2 * _TILE - products))
    return (
        np.concatenate([out_of_reach, inputs], axis=1),
        filters * filter_scale[:, None],
        outputs / (input_scale * filter_scale)[:, None],
    )


def _sum(weights: np.ndarray, terms: Sequence[Array]) -> Any:
    """Returns the weighted sum; the number 0 if all weights are 0."""
    return sum((np.float32(w) * term for w, term in zip(weights, terms) if w), start=0)


def _phases(x: Array, dilation: int) -> list[Array]:
    """Returns for each i frame i of all tiles, (b, tiles, dilation, c).

    The frames of a tile lie `dilation` apart.
    """
    b, t, c = x.shape
    tiles = -(-t // (_TILE * dilation))
    x = jnp.pad(x, ((0, 0), (0, tiles * _TILE * dilation - t), (0, 0)))
    x = x.reshape(b, tiles, _TILE, dilation, c)
    return [x[:, :, i] for i in range(_TILE)]


def _frames(phases: Sequence[Array], t: int) -> Array:
    """The reverse of `_phases`."""
    x = jnp.stack(phases, axis=2)
    return x.reshape(x.shape[0], -1, x.shape[-1])[:, :t]


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _evaluated_inputs(x: Array, dilation: int, inputs: np.ndarray) -> list[Array]:
    own = _phases(x, dilation)
    before = [jnp.pad(p, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1] for p in own]
    return [_rows(_sum(row, before + own)) for row in inputs]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _tiled(x: Array, kernel: Array, dilation: int) -> Array:
    inputs, filters, outputs = _matrices(kernel.shape[0])
    shape = _phases(x, dilation)[0].shape
    products = [
        (a @ _sum(row, list(kernel))).reshape(*shape[:3], -1)
        for a, row in zip(_evaluated_inputs(x, dilation, inputs), filters)
    ]
    return _frames([_sum(column, products) for column in outputs.T], x.shape[1])


def _tiled_forward(x: Array, kernel: Array, dilation: int):
    return _tiled(x, kernel, dilation), (x, kernel)


def _tiled_backward(dilation: int, saved: tuple[Array, Array], gradient: Array):
    """The transposes of the forward pass's sums and products."""
    x, kernel = saved
    inputs, filters, outputs = _matrices(kernel.shape[0])
    by_phase = _phases(gradient, dilation)
    evaluated = [_rows(_sum(row, by_phase)) for row in outputs]
    of_taps = [a.T @ g for a, g in zip(_evaluated_inputs(x, dilation, inputs), evaluated)]
    of_inputs = [
        (g @ _sum(row, list(kernel)).T).reshape(*by_phase[0].shape[:3], -1)
        for g, row in zip(evaluated, filters)
    ]

    def of_phase(i: int) -> Array:
        before, own = (_sum(inputs[:, column], of_inputs) for column in (i, _TILE + i))
        if not inputs[:, i].any():
            return own
        return own + jnp.pad(before, ((0, 0), (0, 1), (0, 0), (0, 0)))[:, 1:]

    return (
        _frames([of_phase(i) for i in range(_TILE)], x.shape[1]),
        jnp.stack([_sum(column, of_taps) for column in filters.T]),
    )


_tiled.defvjp(_tiled_forward, _tiled_backward)
