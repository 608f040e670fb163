"""Multi-head attention from frames to context frames, of which some may be missing."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


class MultiHeadAttention(nn.Module):
    """Multi-head attention as torch.nn.MultiheadAttention defines it, with masks as it does not.

    A row of the batch without a single valid context frame gives zeros (not the uniform mean of
    garbage that a softmax over equal scores would be), so that nothing observed adds nothing.

    With one context frame (s = 1) the softmax is 1 whatever the query, and the result is
    Wo (Wv f + bv) + bo, the same for every query: exact, without queries, keys or scores. Dropout
    on that one weight then scales each head's share of the result. `closed_form=False` computes
    the same by the general formula and draws the same dropout; parameters are the same either way.

    Attributes:
        num_heads: heads; must divide the width of the queries.
        dropout_rate: on the attention weights.
        closed_form: use the short cut for s = 1.
        dtype: of the matrix products; scores and softmax are float32.
        param_dtype: of the parameters.
    """

    num_heads: int
    dropout_rate: float | int
    closed_form: bool = True
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
        """Returns the attended context, (b, q, d); zeros for windows without valid context."""
        width = queries.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide the width {width}")
        query_kernel, query_bias = self._into_heads("query", width)
        key_kernel, key_bias = self._into_heads("key", width)
        value_kernel, value_bias = self._into_heads("value", width)
        out_kernel, out_bias = self._out_of_heads(width)
        dropout = nn.Dropout(self.dropout_rate, deterministic=deterministic, name="dropout")

        queries, context = queries.astype(self.dtype), context.astype(self.dtype)
        # Keeps garbage (even NaN) at masked frames out of the products and of their gradients.
        context = jnp.where(context_mask[..., None], context, 0)
        values = jnp.einsum("bsd,dhk->bshk", context, value_kernel) + value_bias
        if self.closed_form and context.shape[1] == 1:
            share = jnp.einsum("bhk,hkd->bhd", values[:, 0], out_kernel)
            if deterministic or not self.dropout_rate:
                attended = share.sum(axis=1)[:, None] + out_bias
                attended = jnp.broadcast_to(attended, queries.shape)
            else:
                ones = jnp.ones((queries.shape[0], self.num_heads, queries.shape[1], 1))
                kept = dropout(ones)[..., 0].astype(self.dtype)  # (b, h, q)
                attended = jnp.einsum("bhq,bhd->bqd", kept, share) + out_bias
        else:
            q = jnp.einsum("bqd,dhk->bqhk", queries, query_kernel) + query_bias
            # The bias adds the same to all scores of a query, which a softmax does not see: its
            # gradient is rounding noise, which Adam would blow up to steps of the full rate.
            key_bias = jax.lax.stop_gradient(key_bias)
            k = jnp.einsum("bsd,dhk->bshk", context, key_kernel) + key_bias
            scores = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32)
            scores *= (width // self.num_heads) ** -0.5
            scores = jnp.where(context_mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
            weights = dropout(jax.nn.softmax(scores, axis=-1)).astype(self.dtype)
            mixed = jnp.einsum("bhqs,bshk->bqhk", weights, values)
            attended = jnp.einsum("bqhk,hkd->bqd", mixed, out_kernel) + out_bias
        return jnp.where(context_mask.any(axis=1)[:, None, None], attended, 0)

    def _into_heads(self, name: str, width: int):
        """Returns the (d, h, k) kernel and (h, k) bias of a projection into heads."""
        kernel_init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 2)
        )
        shape = (width, self.num_heads, width // self.num_heads)
        kernel = self.param(
            f"{name}_kernel",
            nn.with_logical_partitioning(kernel_init, ("embed", "heads", "head_dim")),
            shape,
            self.param_dtype,
        )
        bias = self.param(
            f"{name}_bias",
            nn.with_logical_partitioning(nn.initializers.zeros_init(), ("heads", "head_dim")),
            shape[1:],
            self.param_dtype,
        )
        return kernel.astype(self.dtype), bias.astype(self.dtype)

    def _out_of_heads(self, width: int):
        """Returns the (h, k, d) kernel and (d,) bias of the output projection."""
        kernel_init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=(0, 1), out_axis=2
        )
        kernel = self.param(
            "out_kernel",
            nn.with_logical_partitioning(kernel_init, ("heads", "head_dim", "embed")),
            (self.num_heads, width // self.num_heads, width),
            self.param_dtype,
        )
        bias = self.param(
            "out_bias",
            nn.with_logical_partitioning(nn.initializers.zeros_init(), ("embed",)),
            (width,),
            self.param_dtype,
        )
        return kernel.astype(self.dtype), bias.astype(self.dtype)
