"""ResNet-18 (He et al., CVPR 2016) on log-mel spectrograms, one vector each.

The audio encoder of RJCA, from TSAV (Kuhnke et al., FG 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.encoders.convolution import Conv2d, max_pool
from maven_jax.encoders.inference_batch_norm import InferenceBatchNorm


@dataclass(frozen=True)
class AudioResnetConfig:
    """Sizes; the defaults are ResNet-18 with one input channel.

    Attributes:
        num_bands: mel bands; any number of spectra is taken.
        stem_dim: channels behind the first convolution.
        widths: channels of each stage.
        depths: blocks of each stage.
        strides: of each stage's first block.
    """

    num_bands: int = 64
    stem_dim: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    strides: tuple[int, ...] = (1, 2, 2, 2)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AudioResnetConfig:
        """Reads our own config.

        Raises:
            UserError: a key is unknown or a value impossible.
        """
        self = hf_config.from_own(cls, config)
        hf_config.check_positive(self)
        hf_config.check_same_length(self, "widths", "depths", "strides")
        return self

    @property
    def blocks(self) -> tuple[tuple[int, int, int], ...]:
        """(channels in, channels out, stride) of every block."""
        blocks, width = [], self.stem_dim
        for features, depth, stride in zip(self.widths, self.depths, self.strides, strict=True):
            for i in range(depth):
                blocks.append((width, features, 1 if i else stride))
                width = features
        return tuple(blocks)


class ResnetBlock(nn.Module):
    """Two 3×3 convolutions with batch norms, added to a shortcut.

    Attributes:
        features: output channels.
        stride: of the first convolution; with one above 1, or another number of channels, the
            shortcut is a 1×1 convolution and a batch norm.
        dtype: of the computation.
    """

    features: int
    stride: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
        norm = partial(InferenceBatchNorm, dtype=self.dtype)
        strides = (self.stride, self.stride)
        conv = partial(Conv2d, self.features, (3, 3), padding=(1, 1), dtype=self.dtype)
        y = conv(stride=strides, axes=("embed", "mlp"), name="conv1")(x)
        y = nn.relu(norm(name="norm1")(y))
        y = norm(name="norm_out")(conv(axes=("mlp", "embed"), name="conv2")(y))
        if self.stride > 1 or x.shape[-1] != self.features:
            shortcut = Conv2d(
                self.features, (1, 1), strides, dtype=self.dtype, name="shortcut_conv"
            )
            x = norm(name="shortcut_norm")(shortcut(x))
        return nn.relu(x + y)


class AudioResnet18(nn.Module):
    """ResNet on spectrograms. Batch norms always behave as in inference.

    Attributes:
        config: sizes.
        dtype: of the computation; the output is float32.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: AudioResnetConfig = AudioResnetConfig()
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, mel: Float[Array, "n f t"]) -> Float[Array, "n d"]:
        """The mean over bands and time of the last block's output.

        Args:
            mel: decibels of mel powers, (x + 14.8) / 19.895; bands, then time.

        Raises:
            ValueError: the number of bands is another than the config says.
        """
        c = self.config
        if mel.shape[1] != c.num_bands:
            raise ValueError(f"{mel.shape[1]} bands, but the encoder is made for {c.num_bands}")
        conv = Conv2d(c.stem_dim, (7, 7), (2, 2), (3, 3), dtype=self.dtype, name="stem_conv")
        x = nn.relu(InferenceBatchNorm(dtype=self.dtype, name="stem_norm")(conv(mel[..., None])))
        x = max_pool(x, 3, 2, 1)
        block = nn.remat(ResnetBlock) if self.remat else ResnetBlock
        for i, (_, features, stride) in enumerate(c.blocks):
            x = block(features, stride, self.dtype, name=f"block{i}")(x)
        return x.astype(jnp.float32).mean((1, 2))
