"""Dropout whose random bits cost a quarter of Flax's, with the same result on every mesh."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from maven_jax.kernels.random_bits import keep_mask


class Dropout(nn.Module):
    """Zeros elements with probability `rate` and scales the rest so that the expectation stays.

    Draws from the rng stream "dropout", as `nn.Dropout` does, with `keep_mask`.

    Attributes:
        rate: probability of leaving out an element, in [0, 1).
        deterministic: leave everything as it is.
    """

    rate: float | int
    deterministic: bool

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns x with dropout.

        Raises:
            ValueError: a rate outside [0, 1).
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout rate {self.rate} is not in [0, 1)")
        if self.deterministic or self.rate == 0:
            return x
        mask, probability = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(mask, x / jnp.asarray(probability, x.dtype), 0)
