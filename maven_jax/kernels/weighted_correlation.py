"""Weighted sums of correlations, which on a TPU are computed again where the gradient needs them.

A correlation of channels is a product over a few frames only: cheap to compute and, with its many
channels, dear to keep. A TPU joins the three operations of the forward pass into one, which writes
no correlation to memory. What the backward pass needs of them stays on the chip, if it takes a few
windows at a time.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from maven_jax.kernels.device import num_devices, platform

# Correlations of the windows of one turn; half of a TPU's memory on the chip holds two such arrays.
TURN_BYTES = 2**25


def weighted_correlation(
    x: Float[Array, "b t c"], y: Float[Array, "b t d"], weight: Float[Array, "k d"]
) -> Float[Array, "b k c"]:
    """Returns weight · tanh(xᵀ y)ᵀ of each window.

    Args:
        x: frames of channels.
        y: frames of the channels that they correlate with.
        weight: of the sums over channels of y.
    """
    if platform() != "tpu":
        return plain(x, y, weight)
    rows, size = len(x), x.shape[2] * y.shape[2] * x.dtype.itemsize / num_devices()
    turns = 1
    while rows % (2 * turns) == 0 and rows * size / turns > TURN_BYTES:
        turns *= 2
    return recomputed(turns, x, y, weight)


def plain(x: Array, y: Array, weight: Array) -> Array:
    """The formula."""
    return jnp.einsum("kd,bcd->bkc", weight, jnp.tanh(jnp.einsum("btc,btd->bcd", x, y)))


def _recomputed(turns: int, x: Array, y: Array, weight: Array) -> Array:
    return plain(x, y, weight)


def _forward(turns: int, x: Array, y: Array, weight: Array):
    return plain(x, y, weight), (x, y, weight)


def _backward(turns: int, saved: tuple[Array, Array, Array], gradient: Array):
    x, y, weight = saved

    def turn(of_weight: Array, part: tuple[Array, Array, Array]):
        x, y, gradient = part
        correlation = jnp.tanh(jnp.einsum("btc,btd->bcd", x, y))

        def of_scores(gradient: Array) -> Array:
            return jnp.einsum("kd,bkc->bcd", weight, gradient) * (1 - correlation**2)

        # Twice the same: the compiler joins each to the one product that it goes into. Were it
        # shared, it would be written out for both, which takes longer.
        again = lax.optimization_barrier(gradient)
        of_x = jnp.einsum("bcd,btd->btc", of_scores(gradient), y)
        of_y = jnp.einsum("bcd,btc->btd", of_scores(again), x)
        # Devices have windows of their own: they exchange this sum after the loop, not in it.
        of_weight += jnp.einsum("bkc,bcd->bkd", gradient, correlation)
        return of_weight, (of_x, of_y)

    def split(x: Array) -> Array:
        """Windows b as (turns, b / turns), each turn with windows of every device."""
        return jnp.moveaxis(x.reshape(-1, turns, *x.shape[1:]), 1, 0)

    def join(x: Array) -> Array:
        return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])

    start = jnp.zeros((len(x) // turns, *weight.shape), weight.dtype)
    of_weight, (of_x, of_y) = lax.scan(turn, start, (split(x), split(y), split(gradient)))
    return join(of_x), join(of_y), of_weight.sum(axis=0)


recomputed = jax.custom_vjp(_recomputed, nondiff_argnums=(0,))
recomputed.defvjp(_forward, _backward)
