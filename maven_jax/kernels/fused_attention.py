"""Attention that keeps no scores: by cuDNN on GPUs, else computed again for the gradient.

(b, h, t, s) scores in float32 are most of the memory of a transformer over frames, and on
accelerators most of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.device import compute_capability, platform

# cuDNN works on tiles of this many keys; of Swin's windows most of a tile would be empty.
_LEAST_KEYS = 128
_AMPERE = (8, 0)
_WIDEST_HEAD = 128


def serves(query: Float[Array, "b t h k"], key: Float[Array, "b s h k"]) -> bool:
    """Whether `attend` takes such queries and keys on this device."""
    width = query.shape[-1]
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and key.shape[1] >= _LEAST_KEYS
        and width % 8 == 0
        and width <= _WIDEST_HEAD
        and compute_capability() >= _AMPERE
    )


def attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    key_mask: Bool[Array, "b s"] | None,
    bias: Float[Array, "*#bh t s"] | None,
    *,
    valid_first: bool,
) -> Float[Array, "b t h k"]:
    """`maven_jax.layers.attention.attend` by cuDNN; the bias is rounded to the queries' dtype."""
    lengths = mask = None
    if key_mask is not None and valid_first:
        lengths = jnp.maximum(key_mask.sum(axis=1, dtype=jnp.int32), 1)
    elif key_mask is not None:
        mask = key_mask[:, None, None, :]
    t, s = query.shape[1], key.shape[1]
    # With a mask or a bias cuDNN takes only even numbers of frames.
    odd_t, odd_s = (t % 2, s % 2) if bias is not None or mask is not None else (0, 0)
    if odd_s and mask is None:
        mask = jnp.ones((len(query), 1, 1, s), bool)
    query = _padded(query, 1, odd_t)
    key, value = _padded(key, 1, odd_s), _padded(value, 1, odd_s)
    if bias is not None:
        bias = bias.reshape((1,) * (4 - bias.ndim) + bias.shape).astype(query.dtype)
        bias = _padded(_padded(bias, 2, odd_t), 3, odd_s)
    if mask is not None:
        mask = jnp.broadcast_to(_padded(mask, 3, odd_s), (len(query), 1, t + odd_t, s + odd_s))
    y = jax.nn.dot_product_attention(
        query,
        key,
        value,
        bias=bias,
        mask=mask,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return y[:, :t]


def _padded(x: Array, axis: int, count: int) -> Array:
    """Zeros, or False, behind the last element along an axis."""
    return jnp.pad(x, [(0, count if a == axis else 0) for a in range(x.ndim)]) if count else x


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, of which accelerators keep only the arguments for the gradient."""
    return function if platform() == "cpu" else jax.checkpoint(function)
