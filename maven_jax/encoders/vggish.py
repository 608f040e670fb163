"""VGGish (Hershey et al., ICASSP 2017): log-mel examples of about a second to one vector each.

The audio encoder of RJCMA, in the layout of its PyTorch port: no final ReLU, no PCA and no
quantisation.
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
from maven_jax.errors import UserError
from maven_jax.layers.linear import Linear


@dataclass(frozen=True)
class VggishConfig:
    """Sizes; the defaults are the published ones.

    Attributes:
        num_frames: spectra in an example.
        num_bands: mel bands.
        widths: channels of each convolution.
        pooled: for each convolution, whether a 2×2 maximum follows (1) or not (0).
        hidden_dims: widths of the hidden linear layers.
        embed_dim: width of the output.
        final_relu: a ReLU behind the last layer, as in the first port; RJCMA's port has none.
    """

    num_frames: int = 96
    num_bands: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 256, 512, 512)
    pooled: tuple[int, ...] = (1, 1, 0, 1, 0, 1)
    hidden_dims: tuple[int, ...] = (4096, 4096)
    embed_dim: int = 128
    final_relu: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VggishConfig:
        """Reads our own config.

        Raises:
            UserError: a key is unknown or a value impossible.
        """
        self = hf_config.from_own(cls, config)
        hf_config.check_positive(self, but=("pooled",))
        hf_config.check_same_length(self, "widths", "pooled")
        if min(self.grid) < 1:
            raise UserError(
                f"encoder config: {sum(self.pooled)} poolings leave nothing of "
                f"{self.num_frames}×{self.num_bands}"
            )
        return self

    @property
    def grid(self) -> tuple[int, int]:
        """Positions in time and frequency behind the last convolution."""
        poolings = sum(bool(p) for p in self.pooled)
        return self.num_frames >> poolings, self.num_bands >> poolings


class VggishBlock(nn.Module):
    """A convolution, ReLU and perhaps a 2×2 maximum.

    Attributes:
        features: output channels.
        pooled: take the maximum.
        axes: logical axis names of input and output channels.
        dtype: of the computation.
    """

    features: int
    pooled: bool
    axes: tuple[str, str]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "n t f c"]) -> Float[Array, "n t2 f2 d"]:
        conv = Conv2d(
            self.features,
            (3, 3),
            padding=(1, 1),
            axes=self.axes,
            use_bias=True,
            dtype=self.dtype,
            name="conv",
        )
        x = nn.relu(conv(x))
        return max_pool(x, 2, 2) if self.pooled else x


class Vggish(nn.Module):
    """VGGish encoder.

    Attributes:
        config: sizes.
        dtype: of the computation; the output is float32.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    config: VggishConfig = VggishConfig()
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, log_mel: Float[Array, "n t f"]) -> Float[Array, "n d"]:
        """Embeddings.

        Args:
            log_mel: natural logarithms of mel magnitudes + 0.01, 10 ms a frame.

        Raises:
            ValueError: the examples have another size than the config says.
        """
        c = self.config
        if log_mel.shape[1:] != (c.num_frames, c.num_bands):
            raise ValueError(
                f"examples of {log_mel.shape[1:]}, but the encoder is made for "
                f"{(c.num_frames, c.num_bands)}"
            )
        x = log_mel[..., None]
        block = nn.remat(VggishBlock) if self.remat else VggishBlock
        for i, (features, pooled) in enumerate(zip(c.widths, c.pooled, strict=True)):
            axes = ("mlp", "embed") if i % 2 else ("embed", "mlp")
            x = block(features, bool(pooled), axes, self.dtype, name=f"block{i}")(x)
        x = x.reshape(len(x), -1)
        linear = partial(Linear, dtype=self.dtype)
        for i, width in enumerate(c.hidden_dims):
            axes = ("mlp", "embed") if i % 2 == 0 else ("embed", "mlp")
            x = nn.relu(linear(width, axes, name=f"hidden{i}")(x))
        axes = ("embed", "mlp") if len(c.hidden_dims) % 2 else ("mlp", "embed")
        x = linear(c.embed_dim, axes, name="embedding")(x)
        x = nn.relu(x) if c.final_relu else x
        return x.astype(jnp.float32)
