"""VideoMAE (Tong et al., NeurIPS 2022): clips of 16 pictures to one vector each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.transformer import EncoderStack


@dataclass(frozen=True)
class VideoMaeConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    num_frames: int = 16
    tubelet_size: int = 2
    use_mean_pooling: bool = True

    # A clip has one vector.
    num_positions = 1

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> VideoMaeConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible, or the config asks for what is not implemented.
        """
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "num_attention_heads", "hidden_size")
        hf_config.check_divides(self, "patch_size", "image_size")
        hf_config.check_divides(self, "tubelet_size", "num_frames")
        activation(self.hidden_act)
        if not (0 < self.num_frames <= 1000 and 0 < self.image_size <= 10_000):
            raise UserError(
                f"config.json: clips of {self.num_frames} pictures of {self.image_size} pixels"
            )
        if config.get("qkv_bias", True) is not True:
            raise UserError("config.json: qkv_bias=False is not supported")
        return self


def _positions(count: int, width: int) -> np.ndarray:
    """(count, width) sines at even channels and cosines at odd ones, which are not learned."""
    channel = np.arange(width)
    angles = np.arange(count)[:, None] / np.power(10_000, 2 * (channel // 2) / width)
    return np.where(channel % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


class VideoMae(nn.Module):
    """VideoMAE encoder.

    Attributes:
        config: sizes.
        dtype: of the computation; outputs are float32.
    """

    config: VideoMaeConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, clips: Float[Array, "n f h w c"]) -> Float[Array, "n d"]:
        """Means of the last hidden states.

        Args:
            clips: as many pictures of such a size as the config says, normalised.
        """
        c = self.config
        n, frames, height, width, channels = clips.shape
        t, p = c.tubelet_size, c.patch_size
        x = clips.reshape(n, frames // t, t, height // p, p, width // p, p, channels)
        x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
        axes = (None, None, None, "channels", "embed")
        x = Linear(c.hidden_size, axes, dtype=self.dtype, name="patch_embedding")(x)
        x = x.reshape(n, -1, c.hidden_size)
        x = EncoderStack(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            c.hidden_act,
            c.layer_norm_eps,
            pre_norm=True,
            key_bias=False,
            dtype=self.dtype,
            name="encoder",
        )(x + jnp.asarray(_positions(x.shape[1], c.hidden_size), self.dtype))
        if not c.use_mean_pooling:
            x = LayerNorm(c.layer_norm_eps, jnp.float32, name="norm")(x)
        return x.astype(jnp.float32).mean(1)
