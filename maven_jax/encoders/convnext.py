"""ConvNeXt (Liu et al., CVPR 2022): images to one vector each, by convolutions alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.encoders.convolution import Conv2d
from maven_jax.encoders.swin import SwinOutput
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.linear import LayerNorm, Linear

# Of all norms but the last.
_NORM_EPS = 1e-6
_KERNEL = 7


@dataclass(frozen=True)
class ConvNextConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    image_size: int = 224
    patch_size: int = 4
    num_channels: int = 3
    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    layer_scale_init_value: float = 1e-6

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ConvNextConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible.
        """
        self = hf_config.from_hf(cls, config)
        activation(self.hidden_act)
        if len(self.depths) != len(self.hidden_sizes):
            raise UserError(
                f"config.json: depths {self.depths} and hidden_sizes {self.hidden_sizes} differ "
                "in length"
            )
        return self

    @property
    def hidden_size(self) -> int:
        """Width of the last stage and of the pooled output."""
        return self.hidden_sizes[-1]


class ConvNextBlock(nn.Module):
    """Depthwise 7×7, norm, a feed-forward part four times as wide, a scale; added to the input.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: ConvNextConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        c, width = self.config, x.shape[-1]
        y = Conv2d(
            width,
            (_KERNEL, _KERNEL),
            padding=(_KERNEL // 2, _KERNEL // 2),
            axes=(None, "embed"),
            use_bias=True,
            groups=width,
            dtype=self.dtype,
            name="depthwise",
        )(x)
        y = LayerNorm(_NORM_EPS, self.dtype, name="norm")(y)
        y = Linear(4 * width, ("embed", "mlp"), dtype=self.dtype, name="up")(y)
        y = activation(c.hidden_act)(y)
        y = Linear(width, ("mlp", "embed"), dtype=self.dtype, name="down")(y)
        if c.layer_scale_init_value > 0:
            start = nn.initializers.constant(c.layer_scale_init_value)
            init = nn.with_logical_partitioning(start, ("embed",))
            y = y * jnp.asarray(self.param("scale", init, (width,)), y.dtype)
        return x + y


class ConvNext(nn.Module):
    """The whole network without its classifier.

    Attributes:
        config: sizes.
        dtype: of the computation; outputs are float32.
    """

    config: ConvNextConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> SwinOutput:
        """Positions of the last stage, and the normalised mean over them.

        Args:
            pixels: normalised as the processor of the weights does it, of any size.
        """
        c = self.config
        x = pixels
        for stage, (width, depth) in enumerate(zip(c.hidden_sizes, c.depths, strict=True)):
            side = 2 if stage else c.patch_size
            if stage:
                x = LayerNorm(_NORM_EPS, self.dtype, name=f"stage{stage}_norm")(x)
            x = Conv2d(
                width,
                (side, side),
                stride=(side, side),
                use_bias=True,
                dtype=self.dtype,
                name=f"stage{stage}_reduction",
            )(x)
            if not stage:
                x = LayerNorm(_NORM_EPS, self.dtype, name="stage0_norm")(x)
            for i in range(depth):
                x = ConvNextBlock(c, self.dtype, name=f"stage{stage}_block{i}")(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        pooled = LayerNorm(c.layer_norm_eps, jnp.float32, name="norm")(x.mean(1))
        return SwinOutput(last_hidden_state=x, pooled=pooled)
