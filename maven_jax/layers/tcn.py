"""Temporal convolutional networks: causal, dilated, weight-normed."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.causal_conv import causal_conv
from maven_jax.layers.activations import gelu
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import LayerNorm, dense, uniform_by_fan_in


class CausalConv(nn.Module):
    """A convolution over frames that sees no later frame, with weight normalisation.

    The kernel is `scale` · v / ‖v‖, the norm over (taps, inputs) for each output channel
    (Salimans & Kingma, 2016), as torch's `weight_norm` of a `Conv1d`. Tap 0 is the earliest frame.

    Attributes:
        features: output channels.
        kernel_size: taps.
        dilation: frames from one tap to the next.
        axes: logical axis names of inputs and outputs.
        dtype: of the product.
        param_dtype: of the parameters.
    """

    features: int
    kernel_size: int
    dilation: int
    axes: tuple[str | None, str | None]
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t d"]:
        """Returns the convolution; frames before the first count as zeros."""
        inputs = x.shape[-1]
        start = uniform_by_fan_in(inputs * self.kernel_size)
        v = self.param(
            "kernel",
            nn.with_logical_partitioning(start, (None, *self.axes)),
            (self.kernel_size, inputs, self.features),
            self.param_dtype,
        )
        norm = jnp.sqrt(jnp.sum(jnp.square(v.astype(jnp.float32)), axis=(0, 1)))
        scale: Any = self.param(
            "scale",
            nn.with_logical_partitioning(
                # At the start the norm changes nothing.
                lambda key, shape, dtype: norm.astype(dtype),
                (self.axes[1],),
            ),
            (self.features,),
            self.param_dtype,
        )
        bias = self.param(
            "bias",
            nn.with_logical_partitioning(start, (self.axes[1],)),
            (self.features,),
            self.param_dtype,
        )
        kernel = (v * (scale / norm)).astype(self.dtype)
        y = causal_conv(x.astype(self.dtype), kernel, self.dilation)
        return y + bias.astype(self.dtype)


class Tcn(nn.Module):
    """A temporal convolutional network: residual levels of two causal convolutions each.

    Level i is dilated by 2**i: convolution, LeakyReLU, dropout, twice; then the level's input (by a
    1x1 convolution, where widths differ) is added and LeakyReLU applied once more. Source: Bai et
    al. (2018), as RJCMA (ABAW6, 2024) uses it. A frame that was not observed is a zero vector.

    Attributes:
        channels: width of each level.
        kernel_size: taps of each convolution.
        dropout_rate: behind each convolution.
        negative_slope: of LeakyReLU.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    channels: tuple[int, ...]
    kernel_size: int
    dropout_rate: float | int
    negative_slope: float | int = 0.01
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Returns the last level's channels; frame i sees none after i, but for rounding."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = jnp.where(mask[..., None], x, 0).astype(self.dtype)
        for level, width in enumerate(self.channels):
            y = x
            for conv, axes in ((1, ("embed", "mlp")), (2, ("mlp", "embed"))):
                y = CausalConv(
                    width,
                    self.kernel_size,
                    2**level,
                    axes,
                    name=f"level_{level}_conv_{conv}",
                    **dtypes,
                )(y)
                y = nn.leaky_relu(y, self.negative_slope)
                y = Dropout(self.dropout_rate, deterministic)(y)
            if x.shape[-1] != width:
                x = dense(
                    width,
                    ("channels", "embed"),
                    name=f"level_{level}_residual",
                    kernel_init=nn.initializers.variance_scaling(2.0, "fan_avg", "uniform"),
                    bias_init=uniform_by_fan_in(x.shape[-1]),
                    **dtypes,
                )(x)
            x = nn.leaky_relu(x + y, self.negative_slope)
        return x


class CentredTcn(nn.Module):
    """A convolutional network that sees as many later frames as earlier ones.

    x ← x + dropout(gelu(norm(conv(x)))), the dilation doubling from layer to layer: with 5 layers
    of 5 taps a frame sees 62 frames on either side.

    Attributes:
        features: width, of inputs too.
        num_layers: convolutions.
        kernel_size: taps; odd.
        dropout_rate: after each.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    features: int
    num_layers: int
    kernel_size: int
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Returns a representation of each frame; frames outside `mask` count as zeros.

        Raises:
            ValueError: an even kernel, which has no centre.
        """
        if self.kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size {self.kernel_size} is even: a centred TCN takes odd ones"
            )
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for i in range(self.num_layers):
            h = jnp.where(mask[..., None], x, 0)
            h = nn.Conv(
                self.features,
                (self.kernel_size,),
                kernel_dilation=2**i,
                kernel_init=nn.with_logical_partitioning(
                    nn.initializers.lecun_normal(), (None, "embed", "mlp")
                ),
                bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("mlp",)),
                name=f"conv_{i}",
                **dtypes,
            )(h)
            h = gelu(LayerNorm(name=f"norm_{i}", **dtypes)(h))
            x = x + Dropout(self.dropout_rate, deterministic)(h)
        return LayerNorm(name="norm", **dtypes)(x)
