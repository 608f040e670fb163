"""Dropout whose random bits cost a quarter of Flax's, with the same result on every mesh."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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

    @property
    def active(self) -> bool:
        """Whether anything is left out.

        Raises:
            ValueError: a rate outside [0, 1).
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"dropout rate {self.rate} is not in [0, 1)")
        return self.rate > 0 and not self.deterministic

    def draw(self, shape: tuple[int, ...]) -> tuple[Bool[Array, "*shape"], float]:
        """Returns which elements stay, and the probability with which they do."""
        return keep_mask(self.make_rng("dropout"), self.rate, shape)

    @nn.compact
    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns x with dropout."""
        if not self.active:
            return x
        keep, probability = self.draw(x.shape)
        return jnp.where(keep, x / jnp.asarray(probability, x.dtype), 0)
