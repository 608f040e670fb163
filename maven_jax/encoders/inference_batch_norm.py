"""Batch normalisation by statistics that are given and never change."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

# The collection of means and variances, Linen's usual name for it.
STATISTICS = "batch_stats"


class InferenceBatchNorm(nn.Module):
    """Batch normalisation of a frozen or fine-tuned encoder.

    Means and variances stay those of the weights' own training, even in fine-tuning: a batch of
    neighbouring frames says little about faces in general, and masked frames must not count. They
    lie in the collection `batch_stats` and get no gradient; scale and bias are parameters.

    Attributes:
        epsilon: added to the variance (PyTorch's default).
        dtype: of the output; computed in float32.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        shape = x.shape[-1:]
        axes = ("norm",)
        scale = self.param(
            "scale", nn.with_logical_partitioning(nn.initializers.ones_init(), axes), shape
        )
        bias = self.param(
            "bias", nn.with_logical_partitioning(nn.initializers.zeros_init(), axes), shape
        )
        mean = self.variable(STATISTICS, "mean", jnp.zeros, shape, jnp.float32).value
        variance = self.variable(STATISTICS, "var", jnp.ones, shape, jnp.float32).value
        mean, variance = jax.lax.stop_gradient((mean, variance))
        factor = jax.lax.rsqrt(variance + self.epsilon) * jnp.asarray(scale, jnp.float32)
        y = (x.astype(jnp.float32) - mean) * factor + jnp.asarray(bias, jnp.float32)
        return y.astype(self.dtype)
