"""The recurrent part of LSTM layers: a scan, or on a GPU one program for all frames.

A scan's turn is a dozen small programs on a GPU, each of which takes longer to start than to run.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from maven_jax.kernels import lstm_triton
from maven_jax.kernels.device import num_devices

State = tuple[Float[Array, "n b h"], Float[Array, "n b h"]]


def run_lstms(
    reverse: tuple[bool, ...],
    frames: Float[Array, "n b t g"],
    recurrent: Float[Array, "n h g"],
    initial: State,
    mask: Bool[Array, "b t"],
) -> Float[Array, "n b t h"]:
    """Returns the hidden states of n LSTMs side by side after each frame, in float32 or rounded.

    Gates lie in the order input, forget, cell, output: g = 4 h. At a masked frame states stay.

    Args:
        reverse: of each LSTM, whether it runs from the last frame to the first.
        frames: the inputs' part of the gates.
        recurrent: weights of the hidden state; its dtype is that of the products.
        initial: (hidden, cell) states before the first frame.
        mask: True where a frame was observed.
    """
    if num_devices() == 1 and lstm_triton.serves(recurrent):
        return lstm_triton.run(reverse, frames, recurrent, initial, mask)
    # In one loop, in which those that run backwards see the frames turned round.
    by_frame = _turned(reverse, jnp.moveaxis(frames.astype(jnp.float32), 2, 0))
    observed = jnp.broadcast_to(mask.T[:, None, :, None], (*by_frame.shape[:3], 1))
    states = _scanned(by_frame, recurrent, initial, _turned(reverse, observed))
    return jnp.moveaxis(_turned(reverse, states), 0, 2)


def _turned(reverse: tuple[bool, ...], x: Array) -> Array:
    """(t, n, …) with the frames of some of the n in reverse order."""
    if not any(reverse):
        return x
    return jnp.stack([x[::-1, i] if turn else x[:, i] for i, turn in enumerate(reverse)], axis=1)


def _scan(
    frames: Float[Array, "t n b g"],
    recurrent: Float[Array, "n h g"],
    initial: State,
    mask: Bool[Array, "t n b 1"],
) -> Float[Array, "t n b h"]:
    def step(state: tuple[Array, Array], frame: tuple[Array, Array]):
        hidden, cell = state
        projected, observed = frame
        z = projected + (hidden.astype(recurrent.dtype) @ recurrent).astype(jnp.float32)
        i, f, g, o = jnp.split(z, 4, axis=-1)
        new_cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
        new_hidden = nn.sigmoid(o) * jnp.tanh(new_cell)
        hidden = jnp.where(observed, new_hidden, hidden)
        return (hidden, jnp.where(observed, new_cell, cell)), hidden

    return lax.scan(step, initial, (frames, mask))[1]


# JAX would add up the gradient of the recurrent weights within the loop, and exchange it between
# devices at every frame. Here it is one product after the loop.
_scanned = jax.custom_vjp(_scan)


def _scanned_forward(frames, recurrent, initial, mask):
    states, back = jax.vjp(lambda f, i: _scan(f, recurrent, i, mask), frames, initial)
    return states, (back, states, recurrent, initial[0])


def _scanned_backward(saved, gradient):
    back, states, recurrent, first = saved
    of_frames, of_initial = back(gradient)
    before = jnp.concatenate([first[None], states[:-1]])
    of_recurrent = jnp.einsum(
        "tnbh,tnbg->nhg", before.astype(recurrent.dtype), of_frames.astype(recurrent.dtype)
    )
    return of_frames, of_recurrent, of_initial, None


_scanned.defvjp(_scanned_forward, _scanned_backward)
