"""Swin V2 (Liu et al., CVPR 2022): cosine attention, biases from distances, norms behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.encoders.swin import Swin, SwinConfig, WindowAttention, relative_index
from maven_jax.errors import UserError
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.transformer import FeedForward

# Of the network that makes biases, and what bounds them and the scores.
_HIDDEN, _LARGEST_BIAS, _LARGEST_SCALE = 512, 16.0, 100.0
_SHORTEST = 1e-12  # of a query or key, as torch normalises it


@dataclass(frozen=True)
class Swinv2Config(SwinConfig):
    """Sizes under Hugging Face's names and with its defaults."""

    pretrained_window_sizes: tuple[int, ...] = (0, 0, 0, 0)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> Swinv2Config:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible, or the config asks for what is not implemented.
        """
        self = super().from_hf(config)
        assert isinstance(self, cls)
        if self.use_absolute_embeddings:
            raise UserError("config.json: use_absolute_embeddings is true; Swin V2 has none")
        if len(self.pretrained_window_sizes) < len(self.depths):
            raise UserError(
                f"config.json: pretrained_window_sizes {self.pretrained_window_sizes}: expected "
                f"one for each of {len(self.depths)} stages"
            )
        return self


def log_distances(window: int, pretrained: int) -> Float[np.ndarray, "n 2"]:
    """All offsets of two patches of a window, on a logarithmic scale (section 3.3).

    Args:
        window: patches along a side.
        pretrained: those of the windows that the weights were trained with first; 0: the same.
    """
    one = np.arange(-(window - 1), window, dtype=np.float32)
    offset = np.stack(np.meshgrid(one, one, indexing="ij"), -1).reshape(-1, 2)
    offset = 8 * offset / np.float32(max((pretrained or window) - 1, 1))
    return np.sign(offset) * np.log2(np.abs(offset) + 1) / np.float32(math.log2(8))


class CosineWindowAttention(WindowAttention):
    """Window attention by the angle of query and key; the bias is made by a small network.

    Attributes:
        pretrained_window: see `log_distances`.
    """

    pretrained_window: int = 0

    def _compared(self, query: Array, key: Array) -> tuple[Array, Array]:
        init = nn.with_logical_partitioning(nn.initializers.constant(math.log(10)), ("heads",))
        scale = jnp.asarray(self.param("log_scale", init, (self.num_heads,)))
        scale = jnp.exp(jnp.minimum(scale, math.log(_LARGEST_SCALE)))[:, None]
        # `attend` divides by the root of the width.
        return _unit(query, scale * math.sqrt(query.shape[-1])), _unit(key, 1.0)

    def _position_bias(self, window: int) -> Float[Array, "h n n"]:
        x = jnp.asarray(log_distances(window, self.pretrained_window), jnp.float32)
        x = jax.nn.relu(Linear(_HIDDEN, (None, "mlp"), name="bias_up")(x))
        x = Linear(self.num_heads, ("mlp", "heads"), use_bias=False, name="bias_down")(x)
        bias = _LARGEST_BIAS * jax.nn.sigmoid(x)
        return bias[relative_index(window, window)].transpose(2, 0, 1)


def _unit(x: Array, scale: Array | float) -> Array:
    wide = x.astype(jnp.float32)
    length = jnp.sqrt(jnp.square(wide).sum(-1, keepdims=True))
    return (wide / jnp.maximum(length, _SHORTEST) * scale).astype(x.dtype)


class Swinv2Block(nn.Module):
    """Window attention and feed-forward, each normalised and added.

    Attributes:
        config: sizes.
        num_heads: of this stage.
        shifted: see `WindowAttention`.
        pretrained_window: see `log_distances`.
        dtype: of the computation.
    """

    config: Swinv2Config
    num_heads: int
    shifted: bool
    pretrained_window: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x d"]) -> Float[Array, "b y x d"]:
        c = self.config
        norm = partial(LayerNorm, c.layer_norm_eps, self.dtype)
        attention = CosineWindowAttention(
            self.num_heads,
            c.window_size,
            self.shifted,
            c.qkv_bias,
            self.dtype,
            key_bias=False,
            pretrained_window=self.pretrained_window,
            name="attention",
        )
        x = x + norm(name="attention_norm")(attention(x))
        mlp_dim = int(c.mlp_ratio * x.shape[-1])
        mlp = FeedForward(mlp_dim, c.hidden_act, dtype=self.dtype, name="mlp")
        return x + norm(name="mlp_norm")(mlp(x))


class Swinv2(Swin):
    """Swin V2 encoder; attributes, call and outputs are Swin's."""

    @property
    def _norm_first(self) -> bool:
        return False

    def _block(self, stage: int, num_heads: int, shifted: bool, name: str) -> nn.Module:
        c = self.config
        assert isinstance(c, Swinv2Config)
        pretrained = c.pretrained_window_sizes[stage]
        return Swinv2Block(c, num_heads, shifted, pretrained, self.dtype, name=name)
