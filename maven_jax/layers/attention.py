"""Multi-head attention from frames to context frames, of which some may be missing."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.dropout import Dropout


class MultiHeadAttention(nn.Module):
    """Multi-head attention as torch.nn.MultiheadAttention defines it, with masks as it does not.

    A row of the batch without a single valid context frame gives zeros (not the uniform mean of
    garbage that a softmax over equal scores would be), so that nothing observed adds nothing.

    With one context frame (s = 1) the softmax is 1 whatever the query, and the result is
    Wo (Wv f + bv) + bo, the same for every query: exact, without queries, keys or scores. Dropout
    on that one weight then scales each head's share of the result. With one query (q = 1) it is
    cheaper to take the query through the keys' kernel, (Wq f) Wkᵀ, and to average the context
    before the values' kernel than to project all context frames; dropout's weights, which do not
    sum to 1, then multiply the values' bias. `closed_form=False` computes the same by the general
    formula and draws the same dropout; parameters are the same either way.

    Attributes:
        num_heads: heads; must divide the width of the queries.
        dropout_rate: on the attention weights.
        closed_form: use the short cuts for s = 1 and q = 1.
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
        dropout = Dropout(self.dropout_rate, deterministic, name="dropout")

        queries, context = queries.astype(self.dtype), context.astype(self.dtype)
        # Keeps garbage (even NaN) at masked frames out of the products and of their gradients.
        context = jnp.where(context_mask[..., None], context, 0)
        if self.closed_form and context.shape[1] == 1:
            values = _into_each_head(context[:, 0], value_kernel) + value_bias
            share = _out_of_each_head(values, out_kernel)
            ones = jnp.ones((queries.shape[0], self.num_heads, queries.shape[1], 1))
            if deterministic or not self.dropout_rate:
                attended = jnp.broadcast_to(share.sum(axis=1)[:, None], queries.shape)
            else:
                attended = _weighted(dropout(ones)[..., 0].astype(self.dtype), share)
            attended += out_bias
        else:
            q = _into_each_head(queries, query_kernel) + query_bias
            folded = self.closed_form and queries.shape[1] == 1
            if folded:
                into_keys = _by_each_head(q[:, 0], key_kernel)
                scores = jnp.einsum(
                    "bhd,bsd->bhs", into_keys, context, preferred_element_type=jnp.float32
                )[:, :, None]
            else:
                # The bias adds the same to all scores of a query, which a softmax does not see:
                # its gradient is rounding noise, which Adam would blow up to full steps.
                key_bias = jax.lax.stop_gradient(key_bias)
                k = _into_each_head(context, key_kernel) + key_bias
                scores = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32)
            scores *= (width // self.num_heads) ** -0.5
            scores = jnp.where(context_mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
            weights = dropout(jax.nn.softmax(scores, axis=-1)).astype(self.dtype)
            if folded:
                mean = jnp.einsum("bhs,bsd->bhd", weights[:, :, 0], context)
                values = _of_each_head(mean, value_kernel)
                values += value_bias * weights.sum(axis=-1)
                mixed = values[:, None]
            else:
                values = _into_each_head(context, value_kernel) + value_bias
                mixed = jnp.einsum("bhqs,bshk->bqhk", weights, values)
            attended = mixed.reshape(*queries.shape[:2], -1) @ out_kernel.reshape(-1, width)
            attended += out_bias
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


# Kernels keep heads between or before other axes, where products by head would have to copy them
# transposed. With few rows it is cheaper to treat a kernel as one matrix of all heads and to leave
# out the blocks of other heads; so do these, for one row per window.


def _into_each_head(x: Float[Array, "*b d"], kernel: Float[Array, "d h k"]):
    """Σ_d x[…, d] kernel[d, h, k], (…, h, k), with the kernel as one matrix."""
    return (x @ kernel.reshape(x.shape[-1], -1)).reshape(*x.shape[:-1], *kernel.shape[1:])


def _apart(x: Float[Array, "b h k"]) -> Float[Array, "b h h*k"]:
    """Each head's vector in its own block of a row, zeros in the others."""
    _, heads, _ = x.shape
    blocks = x[:, :, None, :] * jnp.eye(heads, dtype=x.dtype)[:, :, None]
    return blocks.reshape(*x.shape[:2], -1)


def _by_each_head(x: Float[Array, "b h k"], kernel: Float[Array, "d h k"]):
    """Σ_k x[b, h, k] kernel[d, h, k], (b, h, d)."""
    return jnp.einsum("bhe,de->bhd", _apart(x), kernel.reshape(kernel.shape[0], -1))


def _of_each_head(x: Float[Array, "b h d"], kernel: Float[Array, "d h k"]):
    """Σ_d x[b, h, d] kernel[d, h, k], (b, h, k)."""
    every = _into_each_head(x, kernel)  # (b, h, every head, k)
    return (every * jnp.eye(x.shape[1], dtype=x.dtype)[:, :, None]).sum(axis=2)


def _out_of_each_head(x: Float[Array, "b h k"], kernel: Float[Array, "h k d"]):
    """Σ_k x[b, h, k] kernel[h, k, d], (b, h, d)."""
    return jnp.einsum("bhe,ed->bhd", _apart(x), kernel.reshape(-1, kernel.shape[-1]))


@jax.custom_vjp
def _weighted(weights: Float[Array, "b h q"], rows: Float[Array, "b h d"]):
    """Σ_h weights[b, h, q] rows[b, h, d], (b, q, d); `weights` are taken as constants."""
    return jnp.einsum("bhq,bhd->bqd", weights, rows)


def _weighted_forward(weights, rows):
    return _weighted(weights, rows), weights


def _weighted_backward(weights, gradient):
    # Derived by JAX it would be (b, d, h), with a transposed copy of the gradient.
    return jnp.zeros_like(weights), jnp.einsum("bhq,bqd->bhd", weights, gradient)


_weighted.defvjp(_weighted_forward, _weighted_backward)
