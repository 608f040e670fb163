"""mini-Xception (Arriaga, Valdenegro and Plöger, 2017): grey faces to classes of expression.

Residual blocks of separable convolutions, each halving the picture; the mean over the places of a
last convolution is the score of a class. Networks of this kind were trained on FER-2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.encoders.convolution import SAME, Conv2d
from maven_jax.encoders.inference_batch_norm import InferenceBatchNorm


@dataclass(frozen=True)
class MiniXceptionConfig:
    """Sizes; the defaults are those of the authors' network for emotions.

    Attributes:
        image_size: pixels along each side.
        num_channels: of the images; grey ones have one.
        stem_dims: channels behind the first two convolutions.
        widths: channels of each block.
        num_classes: expressions.
        norm_eps: added to variances (Keras's default).
    """

    image_size: int = 64
    num_channels: int = 1
    stem_dims: tuple[int, ...] = (8, 8)
    widths: tuple[int, ...] = (16, 32, 64, 128)
    num_classes: int = 7
    norm_eps: float = 1e-3

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> MiniXceptionConfig:
        """Reads our own config.

        Raises:
            UserError: a key is unknown or a value impossible.
        """
        self = hf_config.from_own(cls, config)
        hf_config.check_positive(self)
        return self


class MiniXceptionOutput(NamedTuple):
    """What the network makes of each picture.

    Attributes:
        pooled: mean over the places of the last block.
        logits: of the classes, before the softmax.
    """

    pooled: Float[Array, "n d"]
    logits: Float[Array, "n classes"]


class SeparableConv(nn.Module):
    """A 3 x 3 convolution of each channel by itself, one over the channels, and batch norm.

    Attributes:
        features: output channels.
        norm_eps: of the batch norm.
        dtype: of the computation.
    """

    features: int
    norm_eps: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w d"]:
        width = x.shape[-1]
        depthwise = Conv2d(
            width,
            (3, 3),
            padding=(1, 1),
            axes=(None, "embed"),
            groups=width,
            dtype=self.dtype,
            name="depthwise",
        )
        pointwise = Conv2d(
            self.features, (1, 1), axes=("embed", "mlp"), dtype=self.dtype, name="pointwise"
        )
        norm = InferenceBatchNorm(self.norm_eps, self.dtype, name="norm")
        return norm(pointwise(depthwise(x)))


class MiniXception(nn.Module):
    """mini-Xception. Batch norms always behave as in inference.

    Attributes:
        config: sizes.
        dtype: of the computation; outputs are float32.
    """

    config: MiniXceptionConfig = MiniXceptionConfig()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"]) -> MiniXceptionOutput:
        """Features and scores.

        Args:
            images: grey from -1 to 1.

        Raises:
            ValueError: the images have another size than the config says.
        """
        c = self.config
        if images.shape[1:] != (c.image_size, c.image_size, c.num_channels):
            raise ValueError(
                f"images of {images.shape[1:]}, but the network is made for "
                f"{(c.image_size, c.image_size, c.num_channels)}"
            )
        norm = partial(InferenceBatchNorm, c.norm_eps, self.dtype)
        separable = partial(SeparableConv, norm_eps=c.norm_eps, dtype=self.dtype)
        x = images
        for i, features in enumerate(c.stem_dims):
            axes = ("channels" if i == 0 else "embed", "mlp")
            x = Conv2d(features, (3, 3), axes=axes, dtype=self.dtype, name=f"stem{i}_conv")(x)
            x = nn.relu(norm(name=f"stem{i}_norm")(x))
        for i, features in enumerate(c.widths):
            shortcut = Conv2d(
                features,
                (1, 1),
                (2, 2),
                axes=("embed", "mlp"),
                dtype=self.dtype,
                name=f"block{i}_shortcut_conv",
            )
            y = nn.relu(separable(features, name=f"block{i}_conv0")(x))
            y = separable(features, name=f"block{i}_conv1")(y)
            y = nn.max_pool(y, (3, 3), (2, 2), SAME)
            x = norm(name=f"block{i}_shortcut_norm")(shortcut(x)) + y
        last = Conv2d(
            c.num_classes,
            (3, 3),
            padding=(1, 1),
            axes=("embed", None),
            use_bias=True,
            dtype=self.dtype,
            name="classes",
        )
        pooled, logits = (jnp.mean(v, (1, 2), jnp.float32) for v in (x, last(x)))
        return MiniXceptionOutput(pooled, logits)
