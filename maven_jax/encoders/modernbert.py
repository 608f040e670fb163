"""ModernBERT (Warner et al., 2024): rotary positions, gated layers, attention mostly nearby."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from maven_jax.encoders import hf_config
from maven_jax.encoders.roberta import embedding_table
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.attention import attend
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.relative_position import relative_positions

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
# A window; its network takes more, but attention to all of 8192 tokens is of little use here.
_MOST_TOKENS = 512
_FAR = -1e30


@dataclass(frozen=True)
class ModernBertConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    vocab_size: int = 50368
    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    norm_eps: float = 1e-5
    pad_token_id: int = 50283
    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> ModernBertConfig:
        """Reads a Hugging Face config, as it was published or as transformers 5 writes it.

        Raises:
            UserError: a size is impossible, or the config asks for what is not implemented.
        """
        config = dict(config)
        rotaries, kinds = config.get("rope_parameters") or {}, config.get("layer_types") or []
        if not isinstance(rotaries, Mapping) or not isinstance(kinds, list):
            raise UserError("config.json: expected rope_parameters by kind, and layer_types")
        for kind, key in ((_GLOBAL, "global_rope_theta"), (_LOCAL, "local_rope_theta")):
            rotary = rotaries.get(kind) or {}
            if (
                not isinstance(rotary, Mapping)
                or rotary.get("rope_type", "default") != "default"
                or config.get("rope_scaling")
            ):
                raise UserError("config.json: scaled rotary positions are not implemented")
            config[key] = rotary.get("rope_theta", config.get(key, getattr(cls, key)))
        for key in ("norm_bias", "attention_bias", "mlp_bias"):
            if config.get(key):
                raise UserError(f"config.json: {key} is true; ModernBERT has no biases")
        every = kinds.index(_GLOBAL, 1) if _GLOBAL in kinds[1:] else len(kinds)
        if kinds:
            config["global_attn_every_n_layers"] = every
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "num_attention_heads", "hidden_size")
        activation(self.hidden_activation)
        if kinds and kinds != [
            _GLOBAL if self.is_global(i) else _LOCAL for i in range(self.num_hidden_layers)
        ]:
            raise UserError("config.json: layer_types do not repeat from the first layer on")
        if self.pad_token_id >= self.vocab_size:
            raise UserError(f"config.json: pad_token_id {self.pad_token_id} is no token")
        if self.head_dim % 2 or self.global_attn_every_n_layers < 1:
            raise UserError("config.json: heads of odd width, or no layer that sees everything")
        return self

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """Longest sequence that is encoded at once."""
        return min(self.max_position_embeddings, _MOST_TOKENS)

    def is_global(self, layer: int) -> bool:
        """Whether a layer's tokens attend to all others."""
        return layer % self.global_attn_every_n_layers == 0


def rotated(x: Float[Array, "b t h k"], theta: float) -> Float[Array, "b t h k"]:
    """Queries or keys turned by angles that grow with their position (Su et al., 2021)."""
    half = x.shape[-1] // 2
    speed = 1 / np.float32(theta) ** (np.arange(half, dtype=np.float32) / half)
    angle = np.arange(x.shape[1], dtype=np.float32)[:, None, None] * speed
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class _Layer(nn.Module):
    """Attention and gated feed-forward part, each normalised before; the first layer's is not."""

    config: ModernBertConfig
    is_global: bool
    is_first: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        c, width = self.config, x.shape[-1]
        norm = partial(LayerNorm, c.norm_eps, self.dtype, use_bias=False)
        linear = partial(Linear, use_bias=False, dtype=self.dtype)
        heads = (3, c.num_attention_heads, c.head_dim)
        y = x if self.is_first else norm(name="attention_norm")(x)
        qkv = linear(heads, ("embed", None, "heads", "head_dim"), name="qkv")(y)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        theta = c.global_rope_theta if self.is_global else c.local_rope_theta
        bias = None
        if not self.is_global:
            near = np.abs(relative_positions(x.shape[1])) <= c.local_attention // 2
            bias = jnp.asarray(np.where(near, np.float32(0), np.float32(_FAR)))[None]
        y = attend(rotated(query, theta), rotated(key, theta), value, mask, bias, valid_first=True)
        x = x + linear(width, ("heads", "head_dim", "embed"), name="out")(y)
        y = linear(2 * c.intermediate_size, ("embed", "mlp"), name="up")(norm(name="mlp_norm")(x))
        y, gate = jnp.split(y, 2, axis=-1)
        return x + linear(width, ("mlp", "embed"), name="down")(
            activation(c.hidden_activation)(y) * gate
        )


class ModernBert(nn.Module):
    """ModernBERT encoder.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: ModernBertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b s"], token_mask: Bool[Array, "b s"]
    ) -> Float[Array, "b s d"]:
        """Last hidden states.

        Args:
            token_ids: padded with any valid id.
            token_mask: False for padding; its outputs are zero and nobody attends to it.
        """
        c = self.config
        norm = partial(LayerNorm, c.norm_eps, self.dtype, use_bias=False)
        words = embedding_table("word", c.vocab_size, c.hidden_size)
        x = norm(name="embedding_norm")(words(token_ids))
        for i in range(c.num_hidden_layers):
            x = _Layer(c, c.is_global(i), i == 0, self.dtype, name=f"layer{i}")(x, token_mask)
        return jnp.where(token_mask[..., None], norm(name="norm")(x), 0)
