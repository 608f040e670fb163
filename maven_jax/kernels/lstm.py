"""The recurrent part of LSTM layers: a scan, or on a GPU one program for all frames.

A scan's turn is a dozen small programs on a GPU, each of which takes longer to start than to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from maven_jax.kernels import lstm_triton
from maven_jax.kernels.device import num_devices, platform

State = tuple[Float[Array, "*n b h"], Float[Array, "*n b h"]]


def run_lstms(
    reverse: tuple[bool, ...],
    frames: Sequence[Float[Array, "b t g"]],
    recurrent: Sequence[Float[Array, "h g"]],
    initial: Sequence[State],
    mask: Bool[Array, "b t"],
) -> list[Float[Array, "b t h"]]:
    """Returns the hidden states of LSTMs side by side after each frame, in float32 or rounded.

    Gates lie in the order input, forget, cell, output: g = 4 h. At a masked frame states stay.

    Args:
        reverse: of each LSTM, whether it runs from the last frame to the first.
        frames: the inputs' part of the gates.
        recurrent: weights of the hidden state; its dtype is that of the products.
        initial: (hidden, cell) states before the first frame.
        mask: True where a frame was observed.
    """
    if platform() == "cpu":  # there a loop of batched products takes longer than a loop for each
        return [
            _swapped(
                _scanned(turn, _swapped(x.astype(jnp.float32)), weights, start, mask.T[..., None])
            )
            for turn, x, weights, start in zip(reverse, frames, recurrent, initial, strict=True)
        ]
    x, weights = jnp.stack(frames), jnp.stack(recurrent)
    start = jax.tree.map(lambda *states: jnp.stack(states), *initial)
    if num_devices() == 1 and lstm_triton.serves(weights):
        return list(lstm_triton.run(reverse, x, weights, start, mask))
    # In one loop, in which those that run backwards see the frames turned round.
    by_frame = _turned(reverse, jnp.moveaxis(x.astype(jnp.float32), 2, 0))
    observed = jnp.broadcast_to(mask.T[:, None, :, None], (*by_frame.shape[:3], 1))
    states: Any = _scanned(False, by_frame, weights, start, _turned(reverse, observed))
    return list(jnp.moveaxis(_turned(reverse, states), 0, 2))


def _swapped(x: Array) -> Array:
    return jnp.swapaxes(x, 0, 1)


def _turned(reverse: tuple[bool, ...], x: Array) -> Array:
    """(t, n, …) with the frames of some of the n in reverse order."""
    if not any(reverse):
        return x
    return jnp.stack([x[::-1, i] if turn else x[:, i] for i, turn in enumerate(reverse)], axis=1)


def _scan(
    reverse: bool,
    frames: Float[Array, "t *n b g"],
    recurrent: Float[Array, "*n h g"],
    initial: State,
    mask: Bool[Array, "t *n b 1"],
) -> Float[Array, "t *n b h"]:
    def step(state: tuple[Array, Array], frame: tuple[Array, Array]):
        hidden, cell = state
        projected, observed = frame
        z = projected + (hidden.astype(recurrent.dtype) @ recurrent).astype(jnp.float32)
        i, f, g, o = jnp.split(z, 4, axis=-1)
        new_cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
        new_hidden = nn.sigmoid(o) * jnp.tanh(new_cell)
        hidden = jnp.where(observed, new_hidden, hidden)
        return (hidden, jnp.where(observed, new_cell, cell)), hidden

    return lax.scan(step, initial, (frames, mask), reverse=reverse)[1]


# JAX would add up the gradient of the recurrent weights within the loop, and exchange it between
# devices at every frame. Here it is one product after the loop.
_scanned = partial(jax.custom_vjp, nondiff_argnums=(0,))(_scan)


def _scanned_forward(reverse: bool, frames, recurrent, initial, mask):
    states, back = jax.vjp(lambda f, i: _scan(reverse, f, recurrent, i, mask), frames, initial)
    return states, (back, states, recurrent, initial[0])


def _scanned_backward(reverse: bool, saved, gradient):
    back, states, recurrent, first = saved
    of_frames, of_initial = back(gradient)
    if reverse:
        before = jnp.concatenate([states[1:], first[None]])
    else:
        before = jnp.concatenate([first[None], states[:-1]])
    of_recurrent = jnp.einsum(
        "t...bh,t...bg->...hg", before.astype(recurrent.dtype), of_frames.astype(recurrent.dtype)
    )
    return of_frames, of_recurrent, of_initial, None


_scanned.defvjp(_scanned_forward, _scanned_backward)
