"""Multi-head attention with one context frame, or with one query: the same numbers, fewer products.

Kernels keep heads between or before other axes, where products by head would have to copy them
transposed. With one row per window it is cheaper to treat a kernel as one matrix of all heads and
to leave out the blocks of other heads.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.wide_einsum import wide_einsum

Dropout = Callable[[Array], Array]


def attend_to_one_frame(
    value: Float[Array, "b h k"],
    out_kernel: Float[Array, "h k d"],
    num_queries: int,
    dropout: Dropout | None,
) -> Float[Array, "b {num_queries} d"]:
    """What every query gets from a single context frame, behind the output's kernel.

    The softmax over one score is 1, so that no query counts. Dropout on that weight scales each
    head's share of the result.

    Args:
        value: of that frame.
        out_kernel: of the output projection.
        num_queries: queries of a window.
        dropout: of the (b, h, q, 1) weights; None for none.
    """
    b, h, _ = value.shape
    width = out_kernel.shape[-1]
    share = jnp.einsum("bhe,ed->bhd", _in_blocks(value), out_kernel.reshape(-1, width))
    if dropout is None:
        return jnp.broadcast_to(share.sum(axis=1)[:, None], (b, num_queries, width))
    weights = dropout(jnp.ones((b, h, num_queries, 1)))[..., 0]
    return _weighted_sum(weights.astype(value.dtype), share)


def attend_from_one_query(
    query: Float[Array, "b h k"],
    context: Float[Array, "b s d"],
    context_mask: Bool[Array, "b s"],
    key_kernel: Float[Array, "d h k"],
    value_kernel: Float[Array, "d h k"],
    value_bias: Float[Array, "h k"],
    dropout: Dropout | None,
) -> Float[Array, "b h k"]:
    """Attention of a single query that projects no context frame.

    The query goes through the keys' kernel, (Wq f) Wkᵀ, and the context is averaged before it goes
    through the values' kernel. The bias of the keys changes no softmax.

    Args:
        query: projected.
        context: frames as they are; finite where masked too.
        context_mask: False for frames that nobody attends to.
        key_kernel: of the keys' projection.
        value_kernel: of the values' projection.
        value_bias: likewise.
        dropout: of the (b, h, 1, s) weights; None for none.
    """
    d, h, k = key_kernel.shape
    in_context = jnp.einsum("bhe,de->bhd", _in_blocks(query), key_kernel.reshape(d, -1))
    scores = wide_einsum("bhd,bsd->bhs", in_context, context)
    scores = jnp.where(context_mask[:, None], scores * k**-0.5, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores)[:, :, None]
    weights = (weights if dropout is None else dropout(weights))[:, :, 0].astype(context.dtype)
    mean = jnp.einsum("bhs,bsd->bhd", weights, context)
    values = (mean @ value_kernel.reshape(d, -1)).reshape(-1, h, h, k)  # by every head's kernel
    values = (values * jnp.eye(h, dtype=values.dtype)[:, :, None]).sum(axis=2)
    # Behind dropout the weights do not sum to 1.
    return values + value_bias * weights.sum(axis=-1)[..., None]


def _in_blocks(x: Float[Array, "b h k"]) -> Float[Array, "b h h*k"]:
    """Each head's vector in its own block of a row, zeros in the others."""
    _, h, _ = x.shape
    blocks = x[:, :, None, :] * jnp.eye(h, dtype=x.dtype)[:, :, None]
    return blocks.reshape(*x.shape[:2], -1)


@jax.custom_vjp
def _weighted_sum(
    weights: Float[Array, "b h q"], rows: Float[Array, "b h d"]
) -> Float[Array, "b q d"]:
    """Σ_h weights[b, h, q] rows[b, h, d]; `weights` are taken as constants."""
    return jnp.einsum("bhq,bhd->bqd", weights, rows)


def _weighted_sum_forward(weights, rows):
    return _weighted_sum(weights, rows), weights


def _weighted_sum_backward(weights, gradient):
    # Derived by JAX it would be (b, d, h), with a transposed copy of the gradient.
    return jnp.zeros_like(weights), jnp.einsum("bhq,bqd->bhd", weights, gradient)


_weighted_sum.defvjp(_weighted_sum_forward, _weighted_sum_backward)
