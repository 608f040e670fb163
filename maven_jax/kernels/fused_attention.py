"""Attention that keeps no scores: by cuDNN on GPUs, or computed again for the gradient.

(b, h, t, s) scores in float32 are most of the memory of a transformer over frames, and on
accelerators most of its time.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.device import ACCELERATORS, compute_capability, platform

# cuDNN works on tiles of this many keys; of Swin's windows most of a tile would be empty.
_LEAST_KEYS = 128
_AMPERE = (8, 0)
# What a gradient that computes a layer again should not compute again.
ATTENDED = "attended"
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
    # Of odd numbers of frames cuDNN has no gradients.
    odd_t, odd_s = t % 2, s % 2
    if odd_s and key_mask is None:
        lengths = jnp.full(len(query), s, jnp.int32)
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


def keeps_no_scores() -> bool:
    """Whether scores are computed again for the gradient: memory is dearer than products."""
    return platform() in ACCELERATORS


def attend_again(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    key_mask: Bool[Array, "b s"] | None,
    bias: Float[Array, "*#bh t s"] | None,
    drawn: tuple[Bool[Array, "b h t s"], Any] | None,
) -> Float[Array, "b t h k"]:
    """`maven_jax.layers.attention.attend`, whose gradient computes the scores again.

    What is kept are the arguments, the result and a sum per query (Dao et al., "FlashAttention",
    2022); of what is dropped out a byte per score.

    Args:
        query: queries.
        key: keys.
        value: values.
        key_mask: False for keys that nobody attends to; a row without any gives zeros.
        bias: added to the scores, broadcast over batch and heads.
        drawn: the weights that stay, and the probability of that.
    """
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # (b, h, t, k)
    mask = None if key_mask is None else key_mask[:, None, None, :]
    return _attend_again(query, key, value, mask, bias, drawn).swapaxes(1, 2)


def _scores(query: Array, key: Array, mask: Array | None, bias: Array | None) -> Array:
    """Returns (b, h, t, s), the smallest finite number where masked."""
    scores = jnp.einsum("bhtk,bhsk->bhts", query, key, preferred_element_type=jnp.float32)
    scores *= query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(jnp.float32).min)


def _dropped(weights: Array, mask: Array | None, drawn: tuple[Array, Any] | None) -> Array:
    """Weights, or their gradients, without those that are masked or left out."""
    if mask is not None:
        weights = jnp.where(mask, weights, 0)
    return weights if drawn is None else jnp.where(drawn[0], weights / drawn[1], 0)


@jax.custom_vjp
def _attend_again(query, key, value, mask, bias, drawn):
    return _again_forward(query, key, value, mask, bias, drawn)[0]


def _again_forward(query, key, value, mask, bias, drawn):
    scores = _scores(query, key, mask, bias)
    highest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    weights = _dropped(weights, mask, drawn).astype(value.dtype)
    y = jnp.einsum("bhts,bhsk->bhtk", weights, value, preferred_element_type=jnp.float32)
    y = checkpoint_name((y / total).astype(value.dtype), ATTENDED)
    log_total = checkpoint_name(highest + jnp.log(total), ATTENDED)
    return y, (query, key, value, mask, bias, drawn, y, log_total)


def _again_backward(saved, of_y):
    query, key, value, mask, bias, drawn, y, log_total = saved
    weights = jnp.exp(_scores(query, key, mask, bias) - log_total)
    of_weights = jnp.einsum("bhtk,bhsk->bhts", of_y, value)
    of_weights = _dropped(of_weights.astype(jnp.float32), mask, drawn)
    # Of the sum over keys that a softmax's gradient subtracts.
    shared = jnp.einsum("bhtk,bhtk->bht", of_y, y, preferred_element_type=jnp.float32)
    of_scores = weights * (of_weights - shared[..., None])
    if mask is not None:
        of_scores = jnp.where(mask, of_scores, 0)
    rounded = (of_scores * query.shape[-1] ** -0.5).astype(query.dtype)
    of_value = jnp.einsum(
        "bhts,bhtk->bhsk", _dropped(weights, mask, drawn).astype(value.dtype), of_y
    )
    return (
        jnp.einsum("bhts,bhsk->bhtk", rounded, key),
        jnp.einsum("bhts,bhtk->bhsk", rounded, query),
        of_value,
        None,
        None if bias is None else _summed_to(of_scores, bias),
        None,
    )


_attend_again.defvjp(_again_forward, _again_backward)


def _summed_to(x: Array, like: Array) -> Array:
    """Sums over the axes along which `like` was broadcast."""
    shape = (1,) * (x.ndim - like.ndim) + like.shape
    axes = [i for i, (a, b) in enumerate(zip(x.shape, shape)) if a != b]
    return x.sum(axes, keepdims=True).reshape(like.shape).astype(like.dtype)
