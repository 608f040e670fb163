"""Vision transformers (Dosovitskiy et al., ICLR 2021): images to one vector each.

One network for ImageNet's ViT and classifiers of faces made of it, for MAE (He et al., 2022), the
vision tower of CLIP (Radford et al., 2021) and DINOv2 (Oquab et al., 2023), with registers too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.transformer import EncoderStack


@dataclass(frozen=True)
class VitConfig:
    """Sizes under Hugging Face's names and with its defaults for `vit` and `vit_mae`."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    num_register_tokens: int = 0
    # How the kinds differ, which their config files do not say: CLIP's norm ahead of the layers
    # and its patches without a bias, DINOv2's layer scale, smooth interpolation with registers.
    norm_first: bool = False
    patch_bias: bool = True
    layer_scale: bool = False
    antialias: bool = False

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> VitConfig:
        """Reads the config of a ViT or of an MAE.

        Raises:
            UserError: a size is impossible, or the config asks for what is not implemented.
        """
        return _checked(hf_config.from_hf(cls, config), config)

    @property
    def grid_size(self) -> int:
        """Patches along each side of the images that it was trained on."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class ClipConfig(VitConfig):
    """CLIP's vision tower, by itself or within the config of the whole."""

    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    patch_size: int = 32
    norm_first: bool = True
    patch_bias: bool = False

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ClipConfig:
        """Reads the config of a CLIP or of its vision tower; errors as of `VitConfig`."""
        inner = config.get("vision_config", config)
        if not isinstance(inner, Mapping):
            raise UserError("config.json: vision_config holds no sizes")
        return _checked(hf_config.from_hf(cls, inner), inner)


@dataclass(frozen=True)
class Dinov2Config(VitConfig):
    """DINOv2."""

    layer_norm_eps: float = 1e-6
    patch_size: int = 14
    layer_scale: bool = True

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Dinov2Config:
        """Reads the config of a DINOv2; errors as of `VitConfig`."""
        self = hf_config.from_hf(cls, config)
        ratio = config.get("mlp_ratio", 4)
        if not isinstance(ratio, int | float) or not 0 < ratio <= 64:
            raise UserError(f"config.json: mlp_ratio is {ratio!r}, expected a number up to 64")
        self = dataclasses.replace(self, intermediate_size=int(self.hidden_size * ratio))
        return _checked(self, config)


@dataclass(frozen=True)
class Dinov2RegistersConfig(Dinov2Config):
    """DINOv2 with registers."""

    num_register_tokens: int = 4
    antialias: bool = True


def _checked(self: Any, config: Mapping[str, Any]) -> Any:
    hf_config.check_divides(self, "num_attention_heads", "hidden_size")
    activation(self.hidden_act)
    if not 0 < self.patch_size <= self.image_size:
        raise UserError(
            f"config.json: patches of {self.patch_size} pixels in images of {self.image_size}"
        )
    for key, plain in (("use_swiglu_ffn", False), ("qkv_bias", True)):
        if config.get(key, plain) is not plain:
            raise UserError(f"config.json: {key}={config[key]!r} is not supported")
    return self


@struct.dataclass
class VitOutput:
    """What `Vit` returns, normalised.

    Attributes:
        cls: (b, d) the token that stands for the whole image.
        mean: (b, d) mean of the patches.
    """

    cls: Float[Array, "b d"]
    mean: Float[Array, "b d"]


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_matrix(size: int, new: int, antialias: bool) -> np.ndarray:
    """(new, size) weights of PyTorch's bicubic interpolation along one axis.

    Without antialiasing its kernel has a = -0.75 and repeats the border, with it a = -0.5 and
    leaves out what lies beyond.
    """
    scale = size / new
    centres = (np.arange(new) + 0.5) * scale
    if antialias:
        wide = max(scale, 1.0)
        places = np.arange(size)
        weights = _cubic((places[None] + 0.5 - centres[:, None]) / wide, -0.5)
        return weights / weights.sum(1, keepdims=True)
    first = np.floor(centres - 0.5).astype(int)
    weights = np.zeros((new, size))
    for tap in range(-1, 3):
        place = np.clip(first + tap, 0, size - 1)
        np.add.at(weights, (np.arange(new), place), _cubic(centres - 0.5 - first - tap, -0.75))
    return weights


class Vit(nn.Module):
    """ViT encoder.

    Attributes:
        config: sizes.
        dtype: of the computation; outputs are float32.
    """

    config: VitConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> VitOutput:
        """The image's token and the mean of its patches.

        Args:
            pixels: normalised as the processor of the weights does it, of whole patches; for other
                sizes than the weights' own, positions are interpolated.
        """
        c, d = self.config, self.config.hidden_size
        b, height, width, channels = pixels.shape
        p = c.patch_size
        grid = (height // p, width // p)
        x = pixels[:, : grid[0] * p, : grid[1] * p]
        x = x.reshape(b, grid[0], p, grid[1], p, channels).transpose(0, 1, 3, 2, 4, 5)
        axes = (None, None, "channels", "embed")
        x = Linear(d, axes, c.patch_bias, dtype=self.dtype, name="patch_embedding")(x)
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), (None, "embed"))
        positions = jnp.asarray(
            self.param(
                "position_embedding",
                nn.with_logical_partitioning(nn.initializers.normal(0.02), ("position", "embed")),
                (c.grid_size**2 + 1, d),
            )
        )
        token = jnp.asarray(self.param("cls_token", init, (1, d))) + positions[:1]
        x = x.reshape(b, -1, d) + self._at(positions[1:], grid).astype(self.dtype)
        first = [jnp.broadcast_to(token, (b, 1, d))]
        if c.num_register_tokens:
            registers = self.param("register_tokens", init, (c.num_register_tokens, d))
            first.append(jnp.broadcast_to(jnp.asarray(registers), (b, c.num_register_tokens, d)))
        x = jnp.concatenate([*(y.astype(self.dtype) for y in first), x], axis=1)
        if c.norm_first:
            x = LayerNorm(c.layer_norm_eps, self.dtype, name="first_norm")(x)
        x = EncoderStack(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            c.hidden_act,
            c.layer_norm_eps,
            pre_norm=True,
            dtype=self.dtype,
            layer_scale=c.layer_scale,
            name="encoder",
        )(x)
        x = LayerNorm(c.layer_norm_eps, jnp.float32, name="norm")(x)
        return VitOutput(cls=x[:, 0], mean=x[:, 1 + c.num_register_tokens :].mean(1))

    def _at(self, positions: Float[Array, "n d"], grid: tuple[int, int]) -> Float[Array, "m d"]:
        """The positions of a grid of patches."""
        side = self.config.grid_size
        if grid == (side, side):
            return positions
        rows, columns = (
            jnp.asarray(resize_matrix(side, n, self.config.antialias), jnp.float32) for n in grid
        )
        table = positions.reshape(side, side, -1)
        return jnp.einsum("yr,xc,rcd->yxd", rows, columns, table).reshape(grid[0] * grid[1], -1)
