"""R(2+1)D (Tran et al., CVPR 2018): clips of face crops to one vector for each place.

The visual encoder of RJCA, from TSAV (Kuhnke et al., FG 2020), without its average pools.
Convolutions over space and over time alternate, so each is one of two dimensions: frames join the
batch for the former, places join each other for the latter.
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
from maven_jax.encoders.convolution import Conv2d
from maven_jax.encoders.inference_batch_norm import InferenceBatchNorm


@dataclass(frozen=True)
class R2Plus1DConfig:
    """Sizes; the defaults are R(2+1)D-18 on colour crops, as RJCA uses it.

    Attributes:
        image_size: pixels along each side.
        num_channels: 3 for RGB. TSAV itself shows a fourth, a mask of the aligned face; RJCA
            drops that channel's weights and shows none.
        num_frames: frames of a clip.
        stem_dims: channels between and behind the stem's two convolutions.
        widths: channels of each stage.
        depths: blocks of each stage.
        strides: of each stage's first block, in space and time.
    """

    image_size: int = 112
    num_channels: int = 3
    num_frames: int = 8
    stem_dims: tuple[int, ...] = (45, 64)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    strides: tuple[int, ...] = (1, 2, 2, 2)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> R2Plus1DConfig:
        """Reads our own config.

        Raises:
            UserError: a key is unknown or a value impossible.
        """
        self = hf_config.from_own(cls, config)
        hf_config.check_positive(self)
        hf_config.check_same_length(self, "widths", "depths", "strides")
        hf_config.check_length(self, "stem_dims", 2)
        return self

    @property
    def blocks(self) -> tuple[tuple[int, int, int], ...]:
        """(channels in, channels out, stride) of every block, the first block's first."""
        blocks, width = [], self.stem_dims[1]
        for features, depth, stride in zip(self.widths, self.depths, self.strides, strict=True):
            for i in range(depth):
                blocks.append((width, features, 1 if i else stride))
                width = features
        return tuple(blocks)

    @property
    def num_positions(self) -> int:
        """Places of the output, row by row."""
        side = -(-self.image_size // 2)
        for stride in self.strides:
            side = -(-side // stride)
        return side * side


def middle_width(width: int, features: int) -> int:
    """Channels between the two parts of a split 3×3×3 convolution, for as many weights as it."""
    return (width * features * 27) // (width * 9 + 3 * features)


class SplitConv(nn.Module):
    """A convolution over space, batch norm, ReLU, and a convolution over time.

    Attributes:
        middle: channels between them.
        features: output channels.
        kernel_size: taps in space, along each side; three in time.
        stride: in space and in time.
        dtype: of the computation.
    """

    middle: int
    features: int
    kernel_size: int
    stride: tuple[int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h2 w2 d"]:
        k, (s, in_time) = self.kernel_size, self.stride
        pad = k // 2
        n, t = x.shape[:2]
        spatial = Conv2d(
            self.middle,
            (k, k),
            (s, s),
            (pad, pad),
            ("embed", "mlp"),
            dtype=self.dtype,
            name="space",
        )
        x = spatial(x.reshape(n * t, *x.shape[2:]))
        x = nn.relu(InferenceBatchNorm(dtype=self.dtype, name="norm")(x))
        h, w = x.shape[1:3]
        temporal = Conv2d(
            self.features,
            (3, 1),
            (in_time, 1),
            (1, 0),
            ("mlp", "embed"),
            dtype=self.dtype,
            name="time",
        )
        x = temporal(x.reshape(n, t, h * w, -1))
        return x.reshape(n, -1, h, w, self.features)


class R2Plus1DBlock(nn.Module):
    """Two split convolutions with batch norms, added to a shortcut.

    Attributes:
        features: output channels.
        stride: of the first convolution, in space and time; with one above 1, or another number
            of channels, the shortcut is a 1×1×1 convolution and a batch norm.
        dtype: of the computation.
    """

    features: int
    stride: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n t h w c"]) -> Float[Array, "n t2 h2 w2 d"]:
        norm = partial(InferenceBatchNorm, dtype=self.dtype)
        # Both convolutions have the first one's width between their parts.
        middle = middle_width(x.shape[-1], self.features)
        conv = partial(SplitConv, middle, self.features, 3, dtype=self.dtype)
        y = conv((self.stride, self.stride), name="conv1")(x)
        y = nn.relu(norm(name="norm1")(y))
        y = norm(name="norm_out")(conv((1, 1), name="conv2")(y))
        if self.stride > 1 or x.shape[-1] != self.features:
            s = self.stride
            x = x[:, ::s, ::s, ::s]
            n, t, h, w, c = x.shape
            shortcut = Conv2d(self.features, (1, 1), dtype=self.dtype, name="shortcut_conv")
            x = shortcut(x.reshape(n * t, h, w, c)).reshape(n, t, h, w, -1)
            x = norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class R2Plus1D(nn.Module):
    """R(2+1)D encoder. Batch norms always behave as in inference.

    Attributes:
        config: sizes.
        dtype: of the computation; the output is float32.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: R2Plus1DConfig = R2Plus1DConfig()
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, clips: Float[Array, "n t h w c"]) -> Float[Array, "n p d"]:
        """A vector for each place, row by row, averaged over what time the strides leave.

        Args:
            clips: frames in order, normalised with the Kinetics means and deviations.

        Raises:
            ValueError: the clips have another size than the config says.
        """
        c = self.config
        size = (c.num_frames, c.image_size, c.image_size, c.num_channels)
        if clips.shape[1:] != size:
            raise ValueError(f"clips of {clips.shape[1:]}, but the encoder is made for {size}")
        middle, features = c.stem_dims
        x = SplitConv(middle, features, 7, (2, 1), self.dtype, name="stem")(clips)
        x = nn.relu(InferenceBatchNorm(dtype=self.dtype, name="stem_norm")(x))
        block = nn.remat(R2Plus1DBlock) if self.remat else R2Plus1DBlock
        for i, (_, features, stride) in enumerate(c.blocks):
            x = block(features, stride, self.dtype, name=f"block{i}")(x)
        x = x.astype(jnp.float32).mean(1)
        return x.reshape(len(x), -1, x.shape[-1])
