"""What a published encoder was trained to tell: its head, on top of pooled hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from maven_jax.layers.activations import activation

# Kernel (inputs, outputs) and bias (outputs,) of each layer.
HeadParams = Sequence[tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Head:
    """Linear layers, some with an activation behind them.

    Attributes:
        activations: of each layer, Hugging Face's name or None.
        inputs: width of what the head takes.
        labels: names of its outputs.
    """

    activations: tuple[str | None, ...]
    inputs: int
    labels: tuple[str, ...]

    def __call__(self, params: HeadParams, x: Float[Array, "*b d"]) -> Float[Array, "*b labels"]:
        """The outputs as they are, without softmax or sigmoid; in float32."""
        x = x.astype(jnp.float32)
        for (kernel, bias), name in zip(params, self.activations, strict=True):
            x = x @ kernel + bias
            if name is not None:
                x = activation(name)(x)
        return x

    @property
    def feature(self) -> str:
        """What its outputs are, for the record."""
        return f"logits: {', '.join(self.labels)}"


def moving_mean(
    x: Float[Array, "b t d"], mask: Bool[Array, "b t"], width: int
) -> Float[Array, "b t d"]:
    """Means over the `width` frames (an odd number) around each; of them only those in the mask."""

    def summed(y: Array) -> Array:
        half = width // 2
        shape = (1, width, *(1,) * (y.ndim - 2))
        pads = ((0, 0), (half, half), *((0, 0),) * (y.ndim - 2))
        return lax.reduce_window(y, 0.0, lax.add, shape, (1,) * y.ndim, pads)

    x = jnp.where(mask[..., None], x.astype(jnp.float32), 0)
    return summed(x) / jnp.maximum(summed(mask.astype(jnp.float32)), 1)[..., None]
