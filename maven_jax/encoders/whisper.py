"""Whisper's encoder (Radford et al., 2022): spectrograms of 30 s to one vector per 20 ms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders import hf_config
from maven_jax.encoders.hubert import Conv
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.linear import LayerNorm
from maven_jax.layers.transformer import EncoderStack

# PyTorch's default, which the config cannot change.
_NORM_EPS = 1e-5


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    activation_function: str = "gelu"
    max_source_positions: int = 1500

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> WhisperConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible.
        """
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "encoder_attention_heads", "d_model")
        activation(self.activation_function)
        if not 1 <= self.max_source_positions <= 100_000:
            raise UserError(
                f"config.json: max_source_positions is {self.max_source_positions:,}, expected 1 "
                "to 100,000"
            )
        return self


class Whisper(nn.Module):
    """Whisper's encoder.

    Attributes:
        config: sizes.
        dtype: of the computation; outputs are float32.
    """

    config: WhisperConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, mel: Float[Array, "b columns bins"]) -> Float[Array, "b frames d"]:
        """Last hidden states, one for two columns.

        Args:
            mel: as Whisper's feature extractor gives it, two columns for each position, silence
                where the sound has ended.
        """
        c = self.config
        x = mel.astype(self.dtype)
        for name, stride in (("conv1", 1), ("conv2", 2)):
            x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
            x = nn.gelu(Conv(c.d_model, 3, stride, True, self.dtype, name=name)(x), False)
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("position", "embed"))
        shape = (c.max_source_positions, c.d_model)
        positions = jnp.asarray(self.param("position_embedding", init, shape), self.dtype)
        x = EncoderStack(
            c.encoder_layers,
            c.encoder_attention_heads,
            c.encoder_ffn_dim,
            c.activation_function,
            _NORM_EPS,
            pre_norm=True,
            key_bias=False,
            dtype=self.dtype,
            name="encoder",
        )(x + positions[: x.shape[1]])
        return LayerNorm(_NORM_EPS, jnp.float32, name="norm")(x)
