"""LSTMs side by side as one GPU program: each block of rows goes through all frames on its own.

The hidden states of a frame are written to memory and read back for the next one, so that the
product with the recurrent weights can take them in parts; only the cells stay in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.device import compute_capability

_AMPERE = (8, 0)
# Rows of a block: the fewest that the matrix units take.
_ROWS = 16
# A product takes so many weights of a gate at once: of several parts there is room near the units.
_PART = 2**13
_WARPS, _STAGES = 8, 3
_NARROWEST, _WIDEST = 64, 512


def serves(recurrent: Float[Array, "n h g"]) -> bool:
    """Whether `run` takes LSTMs with such weights on this device."""
    width = recurrent.shape[1]
    return (
        compute_capability() >= _AMPERE
        and recurrent.dtype in (jnp.bfloat16, jnp.float16)
        and _NARROWEST <= width <= _WIDEST
        and width & (width - 1) == 0  # Triton's arrays have such sizes
    )


def run(
    reverse: tuple[bool, ...],
    frames: Float[Array, "n b t g"],
    recurrent: Float[Array, "n h g"],
    initial: tuple[Float[Array, "n b h"], Float[Array, "n b h"]],
    mask: Bool[Array, "b t"],
    *,
    interpret: bool = False,
) -> Float[Array, "n b t h"]:
    """Returns the hidden states of n LSTMs, rounded to the dtype of the weights.

    The states of the cells are float32; the gates are rounded for the gradient. Arguments are those
    of `maven_jax.kernels.lstm.run_lstms`.
    """
    rows = frames.shape[1]
    padding = -rows % _ROWS

    def padded(x: Array) -> Array:
        return jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2)) if padding else x

    hidden, cell = initial
    states: Any = _run(
        reverse,
        interpret,
        padded(frames.astype(recurrent.dtype)),
        recurrent,
        padded(hidden.astype(recurrent.dtype)),
        padded(cell.astype(jnp.float32)),
        jnp.pad(mask.astype(jnp.int32), ((0, padding), (0, 0))),
    )
    return states[:, :rows]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(reverse, interpret, frames, recurrent, hidden, cell, mask):
    return _run_forward(reverse, interpret, frames, recurrent, hidden, cell, mask)[0]


def _run_forward(reverse, interpret, frames, recurrent, hidden, cell, mask):
    n, b, t, g = frames.shape
    h = g // 4
    dtype = recurrent.dtype
    # Frame i lies at slot i + 1, or reversed at i; what precedes the first at the slot left over.
    states, cells, gates = _call(
        _forward,
        reverse,
        interpret,
        [((n, b, t + 1, h), dtype), ((n, b, t + 1, h), jnp.float32), ((n, b, t, g), dtype)],
    )(frames, recurrent, hidden, cell, mask)
    return _after(reverse, states), (states, cells, gates, recurrent, mask)


def _run_backward(reverse, interpret, saved, gradient):
    states, cells, gates, recurrent, mask = saved
    n, b, t, g = gates.shape
    h = g // 4
    of_frames, of_hidden, of_cell = _call(
        _backward,
        reverse,
        interpret,
        [((n, b, t, g), gates.dtype), ((n, b, h), jnp.float32), ((n, b, h), jnp.float32)],
    )(gradient, recurrent.mT, cells, gates, mask)
    of_recurrent = jnp.einsum("nbth,nbtg->nhg", _before(reverse, states), of_frames)
    return of_frames, of_recurrent, of_hidden.astype(gradient.dtype), of_cell, None


_run.defvjp(_run_forward, _run_backward)


def _after(reverse: tuple[bool, ...], slots: Array) -> Array:
    return jnp.stack([x[:, :-1] if r else x[:, 1:] for r, x in zip(reverse, slots)])


def _before(reverse: tuple[bool, ...], slots: Array) -> Array:
    return jnp.stack([x[:, 1:] if r else x[:, :-1] for r, x in zip(reverse, slots)])


def _call(kernel: Callable, reverse: tuple[bool, ...], interpret: bool, outputs: list) -> Callable:
    """The kernel for each LSTM and block of rows."""
    (n, b, *_), _ = outputs[0]

    def body(*refs: Any) -> None:
        rows = pl.ds(pl.program_id(1) * _ROWS, _ROWS)
        n = pl.program_id(0)
        for lstm, backwards in enumerate(reverse):
            pl.when(n == lstm)(partial(kernel, n, backwards, rows, interpret, *refs))

    return pl.pallas_call(
        body,
        grid=(n, b // _ROWS),
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in outputs],
        compiler_params=plgpu.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        interpret=interpret,
        name=kernel.__name__,
    )


def _slots(i: Array, reverse: bool) -> tuple[Array, Array]:
    """Returns where the states before and after frame i lie."""
    return (i + 1, i) if reverse else (i, i + 1)


def _wait(interpret: bool) -> None:
    """All threads see what each has written."""
    if not interpret:
        plgpu.debug_barrier()


def _forward(n, reverse, rows, interpret, x, w, hidden, cell, mask, states, cells, gates):
    t, h = x.shape[2], hidden.shape[-1]
    size = min(h, _PART // h)
    first = pl.ds(t if reverse else 0, 1)
    plgpu.store(states.at[n, rows, first], plgpu.load(hidden.at[n, rows])[:, None])
    start = plgpu.load(cell.at[n, rows])
    plgpu.store(cells.at[n, rows, first], start[:, None])

    def frame(step: Array, c: Array) -> Array:
        i = t - 1 - step if reverse else step
        before, after = _slots(i, reverse)
        _wait(interpret)

        def add(part: Array, z: tuple[Array, ...]) -> tuple[Array, ...]:
            at = pl.ds(part * size, size)
            y = plgpu.load(states.at[n, rows, before, at])
            weights = [plgpu.load(w.at[n, at, pl.ds(k * h, h)]) for k in range(4)]
            return tuple(a + plgpu.dot(y, b) for a, b in zip(z, weights))

        z = tuple(
            plgpu.load(x.at[n, rows, i, pl.ds(k * h, h)]).astype(jnp.float32) for k in range(4)
        )
        z = jax.lax.fori_loop(0, h // size, add, z)
        gate = [jnp.tanh(v) if k == 2 else jax.nn.sigmoid(v) for k, v in enumerate(z)]
        for k, value in enumerate(gate):
            plgpu.store(gates.at[n, rows, i, pl.ds(k * h, h)], value.astype(gates.dtype))
        observed = plgpu.load(mask.at[rows, i])[:, None] > 0
        new_cell = gate[1] * c + gate[0] * gate[2]
        new_hidden = (gate[3] * jnp.tanh(new_cell)).astype(states.dtype)
        held = plgpu.load(states.at[n, rows, before])
        c = jnp.where(observed, new_cell, c)
        plgpu.store(states.at[n, rows, after], jnp.where(observed, new_hidden, held))
        plgpu.store(cells.at[n, rows, after], c)
        return c

    jax.lax.fori_loop(0, t, frame, start)


def _backward(n, reverse, rows, interpret, of_y, w, cells, gates, mask, of_x, of_hidden, of_cell):
    t, h = of_y.shape[2], of_y.shape[-1]
    size = min(h, _PART // h)

    def frame(step: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        of_h, of_c = carry
        i = step if reverse else t - 1 - step
        before, after = _slots(i, reverse)
        of_h += plgpu.load(of_y.at[n, rows, i]).astype(jnp.float32)
        observed = plgpu.load(mask.at[rows, i])[:, None] > 0
        gate = [
            plgpu.load(gates.at[n, rows, i, pl.ds(k * h, h)]).astype(jnp.float32) for k in range(4)
        ]
        c, c_before = plgpu.load(cells.at[n, rows, after]), plgpu.load(cells.at[n, rows, before])
        tanh = jnp.tanh(c)
        inner = of_c + of_h * gate[3] * (1 - tanh * tanh)
        of_z = (
            inner * gate[2] * gate[0] * (1 - gate[0]),
            inner * c_before * gate[1] * (1 - gate[1]),
            inner * gate[0] * (1 - gate[2] * gate[2]),
            of_h * tanh * gate[3] * (1 - gate[3]),
        )
        for k, value in enumerate(of_z):
            value = jnp.where(observed, value, 0).astype(of_x.dtype)
            plgpu.store(of_x.at[n, rows, i, pl.ds(k * h, h)], value)
        _wait(interpret)

        def add(part: Array, total: Array) -> Array:
            at = pl.ds(part * size, size)
            return total + plgpu.dot(
                plgpu.load(of_x.at[n, rows, i, at]), plgpu.load(w.at[n, at, :])
            )

        through = jax.lax.fori_loop(0, 4 * h // size, add, jnp.zeros((_ROWS, h), jnp.float32))
        return (
            jnp.where(observed, through, of_h),
            jnp.where(observed, inner * gate[1], of_c),
        )

    zeros = jnp.zeros((_ROWS, h), jnp.float32)
    of_h, of_c = jax.lax.fori_loop(0, t, frame, (zeros, zeros))
    plgpu.store(of_hidden.at[n, rows], of_h)
    plgpu.store(of_cell.at[n, rows], of_c)
