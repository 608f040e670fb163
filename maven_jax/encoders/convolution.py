"""The parts that convolutional encoders share: convolutions, pooling, PReLU."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# TensorFlow's padding: as many outputs as inputs / stride, the odd zero behind.
SAME = "SAME"


class Conv2d(nn.Module):
    """A convolution over rows and columns, padded by zeros as PyTorch's is.

    Attributes:
        features: output channels.
        kernel_size: taps along rows and columns.
        stride: between outputs, along rows and columns.
        padding: zeros on both sides of rows and columns, or `SAME`.
        axes: logical axis names of input and output channels.
        use_bias: adds a bias.
        groups: of channels; each output sees those of its group.
        dtype: of the computation.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    axes: tuple[str | None, str | None] = ("channels", "embed")
    use_bias: bool = False
    groups: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        init = nn.with_logical_partitioning(nn.initializers.he_normal(), (None, None, *self.axes))
        pads = self.padding
        if not isinstance(pads, str):
            pads = [(pad, pad) for pad in pads]
        y = lax.conv_general_dilated(
            x.astype(self.dtype),
            jnp.asarray(self.param("kernel", init, shape), self.dtype),
            self.stride,
            pads,
            dimension_numbers=_LAYOUT,
            feature_group_count=self.groups,
        )
        if self.use_bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:])
            y = y + jnp.asarray(self.param("bias", init, (self.features,)), self.dtype)
        return y


class PRelu(nn.Module):
    """max(x, 0) + slope · min(x, 0), one learned slope a channel (He et al., ICCV 2015).

    Attributes:
        axis: logical axis name of the channels.
    """

    axis: str

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        init = nn.with_logical_partitioning(nn.initializers.constant(0.25), (self.axis,))
        slope = jnp.asarray(self.param("slope", init, x.shape[-1:]), x.dtype)
        return jnp.where(x > 0, x, slope * x)


def max_pool(
    x: Float[Array, "n h w c"], size: int, stride: int, padding: int = 0
) -> Float[Array, "n y x c"]:
    """The largest value of each window; padding never wins."""
    pads = ((padding, padding), (padding, padding))
    # Linen's annotation knows words only.
    return nn.max_pool(x, (size, size), (stride, stride), pads)  # pyright: ignore
