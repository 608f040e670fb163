"""Batch normalisation that counts valid frames only."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float


class MaskedBatchNorm(nn.Module):
    """Normalises each channel over the valid frames of the batch; computes and returns float32.

    As torch's `BatchNorm1d`: biased variance for the batch, unbiased for the running one. In a
    jitted step the batch is the global one: any number of devices gives the same numbers.
    Collection `batch_stats`: `mean`, `var` (c,), the running ones, used unless training. A batch
    with fewer than two valid frames leaves them as they are.

    Attributes:
        momentum: share of a batch in the running statistics, torch's definition.
        epsilon: added to the variance.
        param_dtype: of scale and bias.
    """

    momentum: float | int = 0.1
    epsilon: float | int = 1e-5
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, train: bool
    ) -> Float[Array, "b t c"]:
        """Returns the normalised frames; where `mask` is False they are finite and mean nothing.

        Args:
            x: frames; those under the mask may hold anything.
            mask: True where a frame counts.
            train: normalise by this batch's statistics, and update the running ones.
        """
        channels = (x.shape[-1],)
        axis = ("norm",)
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), axis)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), axis)
        scale: Any = self.param("scale", ones, channels, self.param_dtype)
        bias: Any = self.param("bias", zeros, channels, self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

        keep = mask[..., None]
        x = jnp.where(keep, x.astype(jnp.float32), 0.0)
        mean, var = running_mean.value, running_var.value
        if train:
            count = jnp.sum(mask)
            mean = jnp.sum(x, axis=(0, 1)) / jnp.maximum(count, 1)
            var = jnp.sum(jnp.where(keep, jnp.square(x - mean), 0.0), axis=(0, 1))
            var = var / jnp.maximum(count, 1)
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                share = jnp.where(count > 1, self.momentum, 0.0)
                for running, new in ((running_mean, mean), (running_var, unbiased)):
                    running.value += share * (jax.lax.stop_gradient(new) - running.value)
        return (x - mean) * jax.lax.rsqrt(var + self.epsilon) * scale + bias
