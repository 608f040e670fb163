"""IResNet (ArcFace; Deng et al., CVPR 2019): face crops to one vector each.

The visual encoder of RJCMA: 50 layers, units of batch norm, convolution, PReLU, convolution and
batch norm, fine-tuned on 48×48 expression crops of which 40×40 are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.encoders.convolution import Conv2d, PRelu
from maven_jax.encoders.inference_batch_norm import InferenceBatchNorm
from maven_jax.layers.linear import Linear

# An embedding of zeros has no direction; this keeps it, and its gradient, finite.
_TINY = 1e-24


@dataclass(frozen=True)
class IResNetConfig:
    """Sizes; the defaults are those of RJCMA's release.

    Attributes:
        image_size: pixels along each side.
        num_channels: of the images.
        stem_dim: channels behind the first convolution.
        widths: channels of each stage.
        depths: units of each stage.
        strides: of each stage's first unit.
        embed_dim: width of the output.
        normalize: give the output length 1, as the release does.
        insightface: InsightFace's units: a batch norm between the first convolution and its PReLU
            too, and a convolution on the shortcut of every stage's first unit.
    """

    image_size: int = 40
    num_channels: int = 3
    stem_dim: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 14, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2)
    embed_dim: int = 512
    normalize: bool = True
    insightface: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> IResNetConfig:
        """Reads our own config.

        Raises:
            UserError: a key is unknown or a value impossible.
        """
        self = hf_config.from_own(cls, config)
        hf_config.check_positive(self)
        hf_config.check_same_length(self, "widths", "depths", "strides")
        return self

    def projects(self, unit: int) -> bool:
        """Whether a unit's shortcut is a convolution."""
        width, features, _ = self.units[unit]
        starts = [sum(self.depths[:stage]) for stage in range(len(self.depths))]
        return width != features or (self.insightface and unit in starts)

    @property
    def units(self) -> tuple[tuple[int, int, int], ...]:
        """(channels in, channels out, stride) of every unit."""
        units, width = [], self.stem_dim
        for features, depth, stride in zip(self.widths, self.depths, self.strides, strict=True):
            for i in range(depth):
                units.append((width, features, 1 if i else stride))
                width = features
        return tuple(units)

    @property
    def grid_size(self) -> int:
        """Positions along each side behind the last unit."""
        size = self.image_size
        for stride in self.strides:
            size = -(-size // stride)
        return size


class IResNetUnit(nn.Module):
    """Batch norm, convolution, PReLU, strided convolution, batch norm; added to a shortcut.

    Attributes:
        features: output channels.
        stride: of the second convolution and of the shortcut.
        project: the shortcut is a 1×1 convolution and a batch norm; otherwise it only drops
            positions.
        middle_norm: a batch norm behind the first convolution.
        dtype: of the computation.
    """

    features: int
    stride: int
    project: bool
    middle_norm: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
        norm = partial(InferenceBatchNorm, dtype=self.dtype)
        strides = (self.stride, self.stride)
        conv = partial(Conv2d, self.features, (3, 3), padding=(1, 1), dtype=self.dtype)
        y = conv(axes=("embed", "mlp"), name="conv1")(norm(name="norm_in")(x))
        if self.middle_norm:
            y = norm(name="norm_middle")(y)
        y = PRelu("mlp", name="prelu")(y)
        y = conv(stride=strides, axes=("mlp", "embed"), name="conv2")(y)
        y = norm(name="norm_out")(y)
        if not self.project:
            return y + x[:, :: self.stride, :: self.stride]
        shortcut = Conv2d(self.features, (1, 1), strides, dtype=self.dtype, name="shortcut_conv")
        return y + norm(name="shortcut_norm")(shortcut(x))


class IResNet(nn.Module):
    """IResNet encoder. Batch norms and dropout always behave as in inference.

    Attributes:
        config: sizes.
        dtype: of the computation; the output is float32.
        remat: recompute each unit in the backward pass instead of keeping its activations.
    """

    config: IResNetConfig = IResNetConfig()
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """Embeddings.

        Args:
            images: RGB from -1 to 1, (x - 0.5) / 0.5 of values from 0 to 1.

        Raises:
            ValueError: the images have another size than the config says.
        """
        c = self.config
        if images.shape[1:] != (c.image_size, c.image_size, c.num_channels):
            raise ValueError(
                f"images of {images.shape[1:]}, but the encoder is made for "
                f"{(c.image_size, c.image_size, c.num_channels)}"
            )
        conv = Conv2d(c.stem_dim, (3, 3), padding=(1, 1), dtype=self.dtype, name="stem_conv")
        x = InferenceBatchNorm(dtype=self.dtype, name="stem_norm")(conv(images))
        x = PRelu("norm", name="stem_prelu")(x)
        unit = nn.remat(IResNetUnit) if self.remat else IResNetUnit
        for i, (_, features, stride) in enumerate(c.units):
            x = unit(features, stride, c.projects(i), c.insightface, self.dtype, name=f"unit{i}")(x)
        x = InferenceBatchNorm(dtype=self.dtype, name="norm")(x)
        x = x.reshape(len(x), -1)
        x = Linear(c.embed_dim, ("mlp", "embed"), dtype=self.dtype, name="embedding")(x)
        x = InferenceBatchNorm(name="embedding_norm")(x)
        if c.normalize:
            x = x * lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _TINY))
        return x
