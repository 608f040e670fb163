"""Swin transformer (Liu et al., ICCV 2021): images to one vector each.

Attention inside windows of the patch grid, shifted by half a window in every second block.
Between stages 2×2 patches merge into one of twice the width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.errors import UserError
from maven_jax.kernels.by_window import by_window
from maven_jax.layers.activations import activation
from maven_jax.layers.attention import attend
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.transformer import FeedForward

# The published models leave the norms of patch embedding and merging at PyTorch's default.
_PATCH_NORM_EPS = 1e-5
# What Swin adds to scores between regions that only the cyclic shift brought together.
_OTHER_REGION = -100.0
# Of Swin-B, 32 frames in parts of 4 took 5.7 s, of 8 6.2 s, and all at once 7.3 s.
_IMAGES_AT_ONCE = 4


@dataclass(frozen=True)
class SwinConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    image_size: int = 224
    patch_size: int = 4
    num_channels: int = 3
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    use_absolute_embeddings: bool = False
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> SwinConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible.
        """
        self = hf_config.from_hf(cls, config)
        activation(self.hidden_act)
        if len(self.depths) != len(self.num_heads):
            raise UserError(
                f"config.json: depths {self.depths} and num_heads {self.num_heads} differ in length"
            )
        for stage, heads in enumerate(self.num_heads):
            if heads < 1 or (self.embed_dim << stage) % heads:
                raise UserError(
                    f"config.json: num_heads[{stage}] {heads} does not divide the width "
                    f"{self.embed_dim << stage} of that stage"
                )
        return self

    @property
    def hidden_size(self) -> int:
        """Width of the last stage and of the pooled output."""
        return self.embed_dim << (len(self.depths) - 1)


@struct.dataclass
class SwinOutput:
    """What `Swin` returns.

    Attributes:
        last_hidden_state: (b, n, d) normalised patches of the last stage, row by row.
        pooled: (b, d) their mean.
    """

    last_hidden_state: Float[Array, "b n d"]
    pooled: Float[Array, "b d"]

    @property
    def mean(self) -> Float[Array, "b d"]:
        """The pooled output, under the name that ViT's has."""
        return self.pooled


def relative_index(window: int, table_window: int) -> np.ndarray:
    """(w·w, w·w) rows of a (2·table_window − 1)² table for pairs of patches of a window."""
    place = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij"), -1)
    place = place.reshape(-1, 2)
    offset = place[:, None, :] - place[None, :, :] + table_window - 1
    return offset[..., 0] * (2 * table_window - 1) + offset[..., 1]


def _region_bias(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """(windows, w·w, w·w): 0 within a region of the shifted grid, `_OTHER_REGION` across."""

    def region(n: int) -> np.ndarray:
        i = np.arange(n)
        return (i >= n - window).astype(int) + (i >= n - shift)

    regions = region(height)[:, None] * 3 + region(width)[None, :]
    regions = regions.reshape(height // window, window, width // window, window)
    regions = regions.transpose(0, 2, 1, 3).reshape(-1, window * window)
    return np.where(regions[:, :, None] == regions[:, None, :], 0.0, _OTHER_REGION)


class WindowAttention(nn.Module):
    """Attention within (shifted) windows of the patch grid.

    Attributes:
        num_heads: heads.
        window_size: patches along a side of a window; a smaller grid is one window.
        shifted: shift windows by half their size.
        qkv_bias: biases of query, key and value.
        dtype: of the computation.
        key_bias: whether the key has one, too.
    """

    num_heads: int
    window_size: int
    shifted: bool
    qkv_bias: bool
    dtype: DTypeLike = jnp.float32
    key_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b y x d"]:
        b, height, width, d = x.shape
        window = min(self.window_size, height, width)
        shift = self.window_size // 2 if self.shifted and min(height, width) > window else 0
        # Padding up to whole windows is attended to: so were the published weights trained.
        x = jnp.pad(x, ((0, 0), (0, -height % window), (0, -width % window), (0, 0)))
        rows, columns = x.shape[1] // window, x.shape[2] // window
        x = jnp.roll(x, (-shift, -shift), (1, 2)) if shift else x
        x = x.reshape(b, rows, window, columns, window, d).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b * rows * columns, window * window, d)

        heads = (self.num_heads, d // self.num_heads)
        projection = partial(Linear, heads, ("embed", "heads", "head_dim"), dtype=self.dtype)
        query = projection(use_bias=self.qkv_bias, name="query")(x)
        key = projection(use_bias=self.qkv_bias and self.key_bias, name="key")(x)
        value = projection(use_bias=self.qkv_bias, name="value")(x)
        query, key = self._compared(query, key)
        bias = self._position_bias(window)
        if shift:
            regions = _region_bias(rows * window, columns * window, window, shift)
            bias = bias + jnp.asarray(regions, jnp.float32)[:, None]  # (windows, h, w·w, w·w)
            bias = jnp.broadcast_to(bias, (b, *bias.shape)).reshape(-1, *bias.shape[1:])
        x = attend(query, key, value, bias=bias)
        x = Linear(d, ("heads", "head_dim", "embed"), dtype=self.dtype, name="out")(x)

        x = x.reshape(b, rows, columns, window, window, d).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(b, rows * window, columns * window, d)
        x = jnp.roll(x, (shift, shift), (1, 2)) if shift else x
        return x[:, :height, :width]

    def _compared(self, query: Array, key: Array) -> tuple[Array, Array]:
        """Queries and keys as their products are taken."""
        return query, key

    def _position_bias(self, window: int) -> Float[Array, "h n n"]:
        """Of pairs of patches of a window."""
        table = self.param(
            "relative_position_bias",
            nn.with_logical_partitioning(nn.initializers.normal(0.02), ("position", "heads")),
            ((2 * self.window_size - 1) ** 2, self.num_heads),
        )
        return jnp.asarray(table)[relative_index(window, self.window_size)].transpose(2, 0, 1)


class SwinBlock(nn.Module):
    """Window attention and feed-forward, each behind a norm and added.

    Attributes:
        config: sizes.
        num_heads: of this stage.
        shifted: see `WindowAttention`.
        dtype: of the computation.
    """

    config: SwinConfig
    num_heads: int
    shifted: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b y x d"]:
        c = self.config
        norm = partial(LayerNorm, c.layer_norm_eps, self.dtype)
        attention = WindowAttention(
            self.num_heads, c.window_size, self.shifted, c.qkv_bias, self.dtype, name="attention"
        )
        x = x + attention(norm(name="attention_norm")(x))
        mlp_dim = int(c.mlp_ratio * x.shape[-1])
        mlp = FeedForward(mlp_dim, c.hidden_act, dtype=self.dtype, name="mlp")
        return x + mlp(norm(name="mlp_norm")(x))


class PatchMerging(nn.Module):
    """2×2 patches to one of twice the width.

    Attributes:
        dtype: of the computation.
        norm_first: normalise before the reduction, not behind it.
    """

    dtype: DTypeLike = jnp.float32
    norm_first: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b y2 x2 d2"]:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        x = jnp.concatenate(
            [x[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1
        )
        norm = LayerNorm(_PATCH_NORM_EPS, self.dtype, name="norm")
        x = norm(x) if self.norm_first else x
        width, axes = x.shape[-1] // 2, ("embed", "mlp")
        x = Linear(width, axes, use_bias=False, dtype=self.dtype, name="reduction")(x)
        return x if self.norm_first else norm(x)


class Swin(nn.Module):
    """Swin encoder.

    Attributes:
        config: sizes.
        dtype: of the computation; outputs are float32.
    """

    config: SwinConfig
    dtype: DTypeLike = jnp.float32

    @property
    def _norm_first(self) -> bool:
        """Whether parts are normalised before what they compute, not behind it."""
        return True

    def _block(self, stage: int, num_heads: int, shifted: bool, name: str) -> nn.Module:
        return SwinBlock(self.config, num_heads, shifted, self.dtype, name=name)

    def __call__(self, pixels: Float[Array, "b h w c"]) -> SwinOutput:
        """Hidden states of the last stage and their mean.

        Args:
            pixels: normalised as the processor of the weights does it; any size whose patch grid
                fits the windows, the config's `image_size` with absolute embeddings.
        """
        c = self.config
        # The first stage's feed-forward part has the largest activations.
        patches = pixels[..., 0].size // c.patch_size**2
        num_bytes = int(patches * c.embed_dim * c.mlp_ratio) * jnp.dtype(self.dtype).itemsize
        x = by_window(
            Swin._encode, self, pixels, num_bytes=num_bytes, at_once=_IMAGES_AT_ONCE
        )  # (b, n, d)
        return SwinOutput(last_hidden_state=x, pooled=x.mean(1))

    @nn.compact
    def _encode(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
        c = self.config
        p = c.patch_size
        pad = ((0, 0), (0, -pixels.shape[1] % p), (0, -pixels.shape[2] % p), (0, 0))
        x = jnp.pad(pixels, pad)
        b, height, width, channels = x.shape
        grid = (height // p, width // p)
        # Patches do not overlap: their convolution is a linear map of reshaped pixels.
        x = x.reshape(b, grid[0], p, grid[1], p, channels).transpose(0, 1, 3, 2, 4, 5)
        axes = (None, None, "channels", "embed")
        x = Linear(c.embed_dim, axes, dtype=self.dtype, name="patch_embedding")(x)
        x = LayerNorm(_PATCH_NORM_EPS, self.dtype, name="patch_norm")(x)
        if c.use_absolute_embeddings:
            side = c.image_size // p
            if grid != (side, side):
                raise ValueError(
                    f"absolute embeddings need images of {c.image_size}×{c.image_size} pixels, "
                    f"not {pixels.shape[1]}×{pixels.shape[2]}"
                )
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("position", "embed"))
            positions = self.param("position_embedding", init, (side * side, c.embed_dim))
            x = x + jnp.asarray(positions, x.dtype).reshape(*grid, -1)
        for stage, (depth, heads) in enumerate(zip(c.depths, c.num_heads, strict=True)):
            if stage:
                merging = PatchMerging(self.dtype, self._norm_first, name=f"stage{stage}_merging")
                x = merging(x)
            for i in range(depth):
                x = self._block(stage, heads, i % 2 == 1, name=f"stage{stage}_block{i}")(x)
        x = LayerNorm(c.layer_norm_eps, jnp.float32, name="norm")(x)
        return x.reshape(b, -1, x.shape[-1])
