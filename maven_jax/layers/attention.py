"""Scaled dot-product attention, with heads and projections around it."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.errors import UserError
from maven_jax.kernels import fused_attention
from maven_jax.kernels.single_token_attention import attend_from_one_query, attend_to_one_frame
from maven_jax.kernels.wide_einsum import wide_einsum
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import Linear, contract

_INTO_HEADS, _OUT_OF_HEADS = ("embed", "heads", "head_dim"), ("heads", "head_dim", "embed")


def attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    key_mask: Bool[Array, "b s"] | None = None,
    bias: Float[Array, "*#bh t s"] | None = None,
    dropout: Dropout | None = None,
    *,
    valid_first: bool = False,
) -> Float[Array, "b t h k"]:
    """Scaled dot-product attention; softmax in float32.

    Args:
        query: queries.
        key: keys.
        value: values.
        key_mask: False for keys that nobody attends to; a row without any gives finite values.
        bias: added to the scores, broadcast over batch and heads.
        dropout: of the (b, h, t, s) weights.
        valid_first: the keys that `key_mask` leaves out lie behind all others; faster on GPUs.
    """
    if dropout is not None and dropout.active:
        b, t, h, _ = query.shape
        drawn = dropout.draw((b, h, t, key.shape[1]))
    elif fused_attention.serves(query, key):
        return fused_attention.attend(query, key, value, key_mask, bias, valid_first=valid_first)
    else:
        drawn = None
    formula = fused_attention.attend_again if fused_attention.keeps_no_scores() else _attend
    return formula(query, key, value, key_mask, bias, drawn)


def _attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    key_mask: Bool[Array, "b s"] | None,
    bias: Float[Array, "*#bh t s"] | None,
    drawn: tuple[Bool[Array, "b h t s"], float] | None,
) -> Float[Array, "b t h k"]:
    """The formula; `drawn` are the weights that stay, and the probability of that."""
    # Heads lead, so that both products are plain batched ones, and the division waits until the
    # values are summed: in Swin's windows a third of the time of the other order, on processors.
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))  # (b, h, t, k)
    query = query * (1 / math.sqrt(query.shape[-1]))
    scores = wide_einsum("bhtk,bhsk->bhts", query, key)
    if bias is not None:
        scores = scores + bias
    if key_mask is not None:
        key_mask = key_mask[:, None, None, :]
        # The smallest finite number, not -inf: a row without keys must not become NaN.
        scores = jnp.where(key_mask, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    if key_mask is not None:
        weights = jnp.where(key_mask, weights, 0.0)
    if drawn is not None:
        keep, probability = drawn
        weights = jnp.where(keep, weights / probability, 0.0)
    weights = weights.astype(value.dtype)
    y = wide_einsum("bhts,bhsk->bhtk", weights, value)
    return (y / total).astype(value.dtype).swapaxes(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Attributes:
        num_heads: heads; must divide the width of the input.
        key_bias: whether the key projection has a bias, as all others do.
        kernel_init: see `Linear`.
        dropout_rate: of the attention weights.
        dtype: of the computation.
    """

    num_heads: int
    key_bias: bool = True
    kernel_init: nn.initializers.Initializer | None = None
    dropout_rate: float | int = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        key_mask: Bool[Array, "b t"] | None = None,
        bias: Float[Array, "*#bh t t"] | None = None,
        *,
        valid_first: bool = False,
        deterministic: bool = True,
    ) -> Float[Array, "b t d"]:
        width = x.shape[-1]
        linear = partial(Linear, kernel_init=self.kernel_init, dtype=self.dtype)
        heads = partial(linear, (self.num_heads, _head_dim(width, self.num_heads)), _INTO_HEADS)
        query = heads(name="query")(x)  # (b, t, h, k)
        key = heads(use_bias=self.key_bias, name="key")(x)
        value = heads(name="value")(x)
        dropout = Dropout(self.dropout_rate, deterministic)
        y = attend(query, key, value, key_mask, bias, dropout, valid_first=valid_first)
        return linear(width, _OUT_OF_HEADS, name="out")(y)


class MultiHeadAttention(nn.Module):
    """Attention from frames to context frames, of which some may be missing.

    As torch.nn.MultiheadAttention defines it. A window without a single valid context frame gives
    zeros, where torch gives the uniform mean of whatever lies under the mask.

    Attributes:
        num_heads: heads; must divide the width of the queries.
        dropout_rate: of the attention weights.
        dtype: of the matrix products; scores and softmax are float32.
        param_dtype: of the parameters.
    """

    num_heads: int
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b q d"],
        context: Float[Array, "b s d"],
        context_mask: Bool[Array, "b s"],
        *,
        deterministic: bool,
    ) -> Float[Array, "b q d"]:
        """Returns the attended context; zeros for windows without valid context."""
        width = queries.shape[-1]
        into = (width, self.num_heads, _head_dim(width, self.num_heads))
        query_kernel, query_bias = self._projection("query", into, _INTO_HEADS, 1)
        key_kernel, key_bias = self._projection("key", into, _INTO_HEADS, 1)
        value_kernel, value_bias = self._projection("value", into, _INTO_HEADS, 1)
        out_kernel, out_bias = self._projection("out", (*into[1:], width), _OUT_OF_HEADS, 2)
        dropout = Dropout(self.dropout_rate, deterministic, name="dropout")

        queries, context = queries.astype(self.dtype), context.astype(self.dtype)
        # Keeps garbage (even NaN) at masked frames out of the products and of their gradients.
        context = jnp.where(context_mask[..., None], context, 0)
        if context.shape[1] == 1:
            value = contract(context[:, 0], value_kernel) + value_bias
            dropout = dropout if dropout.active else None
            attended = attend_to_one_frame(value, out_kernel, queries.shape[1], dropout)
        elif queries.shape[1] == 1:
            query = contract(queries[:, 0], query_kernel) + query_bias
            y = attend_from_one_query(
                query, context, context_mask, key_kernel, value_kernel, value_bias, dropout
            )
            attended = contract(y[:, None], out_kernel, 2)
        else:
            query = contract(queries, query_kernel) + query_bias
            # The bias adds the same to all scores of a query, which a softmax does not see: its
            # gradient is rounding noise, which Adam would blow up to full steps.
            key = contract(context, key_kernel) + jax.lax.stop_gradient(key_bias)
            value = contract(context, value_kernel) + value_bias
            attended = attend(query, key, value, context_mask, dropout=dropout)
            attended = contract(attended, out_kernel, 2)
        attended += out_bias
        return jnp.where(context_mask.any(axis=1)[:, None, None], attended, 0)

    def _projection(
        self, name: str, shape: tuple[int, ...], axes: tuple[str, ...], num_in: int
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Returns kernel and bias; flat names, unlike those of `Linear`, are in checkpoints."""
        kernel_init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", range(num_in), range(num_in, len(shape))
        )
        kernel_init = nn.with_logical_partitioning(kernel_init, axes)
        bias_init = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes[num_in:])
        kernel = self.param(f"{name}_kernel", kernel_init, shape, self.param_dtype)
        bias = self.param(f"{name}_bias", bias_init, shape[num_in:], self.param_dtype)
        return kernel.astype(self.dtype), bias.astype(self.dtype)


def _head_dim(width: int, num_heads: int) -> int:
    if width % num_heads:
        raise UserError(f"num_heads {num_heads} does not divide the width {width}")
    return width // num_heads
