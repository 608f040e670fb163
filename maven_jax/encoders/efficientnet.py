"""EfficientNet (Tan and Le, ICML 2019): images to one vector each.

The network of EmotiEffNet (HSEmotion; Savchenko, 2022), the usual encoder of faces in the ABAW
challenges. Its variants B0 to B7 differ in widths and depths only, which weights tell themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.encoders.convolution import SAME, Conv2d
from maven_jax.encoders.inference_batch_norm import InferenceBatchNorm
from maven_jax.errors import UserError

# A block squeezes to a quarter of the channels that it gets.
_SQUEEZE = 4


@dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes; the defaults are those of B0 under its name in timm.

    Attributes:
        image_size: pixels along each side; the network takes others too.
        num_channels: of the images.
        stem_dim: channels behind the first convolution.
        widths: channels of each stage.
        depths: blocks of each stage.
        kernels: taps along each side of the depthwise convolutions of each stage.
        strides: of each stage's first block.
        expansions: how many times wider a block of each stage is inside; 1 leaves that out.
        head_dim: width of the output.
        same_padding: pad as TensorFlow does, more behind than before (timm's `tf_` networks).
        norm_eps: of the batch norms; 1e-3 in timm's `tf_` networks.
    """

    image_size: int = 224
    num_channels: int = 3
    stem_dim: int = 32
    widths: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernels: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    head_dim: int = 1280
    same_padding: bool = False
    norm_eps: float = 1e-5

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EfficientNetConfig:
        """Reads our own config.

        Raises:
            UserError: a key is unknown or a value impossible.
        """
        self = hf_config.from_own(cls, config)
        hf_config.check_positive(self)
        lists = ("widths", "depths", "kernels", "strides", "expansions")
        hf_config.check_same_length(self, *lists)
        if not 0 < self.norm_eps < 1:
            raise UserError(f"encoder config: norm_eps is {self.norm_eps}, expected 0 to 1")
        return self

    @property
    def blocks(self) -> tuple[tuple[str, int, int, int, int, int], ...]:
        """(stage.block, channels in, channels out, taps, stride, expansion) of every block."""
        blocks, width = [], self.stem_dim
        stages = zip(self.widths, self.depths, self.kernels, self.strides, self.expansions)
        for stage, (features, depth, kernel, stride, expansion) in enumerate(stages):
            for i in range(depth):
                step = 1 if i else stride
                blocks.append((f"{stage}.{i}", width, features, kernel, step, expansion))
                width = features
        return tuple(blocks)


class Block(nn.Module):
    """Wider, depthwise convolution, channels weighed by their means, narrower; added to the input.

    Attributes:
        features: output channels; the input is added if it has as many and the stride is 1.
        kernel: taps along each side of the depthwise convolution.
        stride: of that.
        expansion: how many times wider it is inside; 1 leaves the first convolution out.
        same_padding: see `EfficientNetConfig`.
        norm_eps: of the norms.
        dtype: of the computation.
    """

    features: int
    kernel: int
    stride: int
    expansion: int
    same_padding: bool
    norm_eps: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n y x d"]:
        norm = partial(InferenceBatchNorm, self.norm_eps, self.dtype)
        conv = partial(Conv2d, dtype=self.dtype)
        wide, y = x.shape[-1] * self.expansion, x
        if self.expansion > 1:
            y = conv(wide, (1, 1), axes=("embed", "mlp"), name="conv1")(y)
            y = jax.nn.silu(norm(name="norm1")(y))
        y = conv(
            wide,
            (self.kernel, self.kernel),
            (self.stride, self.stride),
            SAME if self.same_padding else (self.kernel // 2, self.kernel // 2),
            axes=(None, "mlp"),
            groups=wide,
            name="conv2",
        )(y)
        y = jax.nn.silu(norm(name="norm2")(y))
        squeezed = y.mean((1, 2), keepdims=True)
        biased = partial(conv, kernel_size=(1, 1), use_bias=True)
        squeezed = biased(max(x.shape[-1] // _SQUEEZE, 1), axes=("mlp", None), name="reduce")(
            squeezed
        )
        squeezed = biased(wide, axes=(None, "mlp"), name="restore")(jax.nn.silu(squeezed))
        y = conv(self.features, (1, 1), axes=("mlp", "embed"), name="project")(
            y * jax.nn.sigmoid(squeezed)
        )
        y = norm(name="norm_out")(y)
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class EfficientNet(nn.Module):
    """EfficientNet encoder.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: EfficientNetConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"]) -> Float[Array, "n d"]:
        """Means over all places behind the last convolution.

        Args:
            images: normalised as the weights expect it.
        """
        c = self.config
        norm = partial(InferenceBatchNorm, c.norm_eps, self.dtype)
        padding = SAME if c.same_padding else (1, 1)
        x = Conv2d(c.stem_dim, (3, 3), (2, 2), padding, dtype=self.dtype, name="stem_conv")(images)
        x = jax.nn.silu(norm(name="stem_norm")(x))
        for name, _, features, kernel, stride, expansion in c.blocks:
            x = Block(
                features,
                kernel,
                stride,
                expansion,
                c.same_padding,
                c.norm_eps,
                self.dtype,
                name=f"block{name.replace('.', '_')}",
            )(x)
        x = Conv2d(c.head_dim, (1, 1), axes=("embed", "mlp"), dtype=self.dtype, name="conv")(x)
        return jax.nn.silu(norm(name="norm")(x)).mean((1, 2))
