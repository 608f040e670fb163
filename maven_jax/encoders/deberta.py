"""DeBERTa-v3 (He et al., 2023): attention by what tokens say and by how far they are apart."""

from __future__ import annotations

import math
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
from maven_jax.kernels.wide_einsum import wide_einsum
from maven_jax.layers.activations import activation
from maven_jax.layers.attention import attend
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.relative_position import relative_positions
from maven_jax.layers.transformer import FeedForward

# What version 3 is, of all that its config could say; without a value, that of transformers.
_VERSION_3: dict[str, tuple[Any, Any]] = {
    "relative_attention": (True, False),
    "share_att_key": (True, False),
    "norm_rel_ebd": ("layer_norm", "none"),
    "position_biased_input": (False, True),
    "type_vocab_size": (0, 0),
    "conv_kernel_size": (0, 0),
}
# Scores are a sum of three: words to words, words to positions, positions to words.
_KINDS_OF_SCORES = 3


@dataclass(frozen=True)
class DebertaConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    position_buckets: int = 256
    layer_norm_eps: float = 1e-7
    pad_token_id: int = 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DebertaConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible, or it is another version of the network.
        """
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "num_attention_heads", "hidden_size")
        activation(self.hidden_act)
        for key, (only, default) in _VERSION_3.items():
            if (value := config.get(key, default)) != only:
                raise UserError(f"config.json: {key} is {value!r}; DeBERTa-v3 has {only!r}")
        kinds = config.get("pos_att_type")
        listed = kinds.split("|") if isinstance(kinds, str) else kinds
        if not isinstance(listed, list | tuple) or sorted(map(str, listed)) != ["c2p", "p2c"]:
            raise UserError(f"config.json: pos_att_type is {kinds!r}; DeBERTa-v3 has p2c|c2p")
        reach = config.get("max_relative_positions", -1)
        if reach not in (-1, self.max_position_embeddings):
            raise UserError(f"config.json: max_relative_positions is {reach!r}, expected -1")
        if not 4 <= self.position_buckets < 2 * self.max_position_embeddings - 2:
            raise UserError(f"config.json: position_buckets {self.position_buckets} is impossible")
        return self

    @property
    def max_tokens(self) -> int:
        """Longest sequence; further positions have no bucket of their own."""
        return self.max_position_embeddings


def distance_rows(num_tokens: int, num_buckets: int, reach: int) -> Int[np.ndarray, "t t"]:
    """Rows of the table of distances: exact nearby, by their logarithm further away.

    Args:
        num_tokens: of the sequence.
        num_buckets: of distances to one side; the table has twice as many rows.
        reach: the largest distance.
    """
    offset = -relative_positions(num_tokens)
    half = num_buckets // 2
    distance = np.maximum(np.abs(offset), half).astype(np.float32) / np.float32(half)
    share = np.log(distance) / np.log(np.float32((reach - 1) / half))
    far = (np.ceil(share * np.float32(half - 1)) + half).astype(int)
    buckets = np.where(np.abs(offset) <= half, offset, np.sign(offset) * far)
    return np.clip(buckets + num_buckets, 0, 2 * num_buckets - 1)


class DisentangledAttention(nn.Module):
    """Self-attention whose scores know the distance of two tokens (section 3.1 of version 1).

    Attributes:
        num_heads: heads; must divide the width of the input.
        dtype: of the computation.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"],
        distances: Float[Array, "r d"],
        rows: Int[Array, "t t"],
    ) -> Float[Array, "b t d"]:
        """Args: tokens, those that are real, the table of distances, its row for each pair."""
        head_dim = x.shape[-1] // self.num_heads
        axes = ("embed", "heads", "head_dim")
        heads = partial(Linear, (self.num_heads, head_dim), axes, dtype=self.dtype)
        query, key = heads(name="query"), heads(name="key")
        value = heads(name="value")(x)
        q, k = query(x), key(x)
        to_distance = wide_einsum("bthk,rhk->bhtr", q, key(distances))
        from_distance = wide_einsum("bshk,rhk->bhsr", k, query(distances))
        bias = jnp.take_along_axis(to_distance, rows[None, None], -1)
        bias += jnp.take_along_axis(from_distance, rows.T[None, None], -1).swapaxes(2, 3)
        scale = 1 / math.sqrt(_KINDS_OF_SCORES)
        bias *= scale / math.sqrt(head_dim)
        y = attend(q * scale, k, value, mask, bias, valid_first=True)
        out = Linear(x.shape[-1], ("heads", "head_dim", "embed"), dtype=self.dtype, name="out")
        return out(y)


class _Layer(nn.Module):
    """Attention and feed-forward part, each normalised behind what it is added to."""

    config: DebertaConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, mask: Array, distances: Array, rows: Array):
        c = self.config
        norm = partial(LayerNorm, c.layer_norm_eps, self.dtype)
        attention = DisentangledAttention(c.num_attention_heads, self.dtype, name="attention")
        x = norm(name="attention_norm")(x + attention(x, mask, distances, rows))
        mlp = FeedForward(c.intermediate_size, c.hidden_act, dtype=self.dtype, name="mlp")
        return norm(name="mlp_norm")(x + mlp(x)), None


class Deberta(nn.Module):
    """DeBERTa-v3 encoder.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: DebertaConfig
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
        norm = partial(LayerNorm, c.layer_norm_eps, self.dtype)
        x = norm(name="norm")(embedding_table("word", c.vocab_size, c.hidden_size)(token_ids))
        every_row = jnp.arange(2 * c.position_buckets)
        table = embedding_table("distance", 2 * c.position_buckets, c.hidden_size)
        distances = norm(name="distance_norm")(table(every_row))
        rows = distance_rows(token_ids.shape[1], c.position_buckets, c.max_position_embeddings)
        layers = nn.scan(
            _Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,  # pyright: ignore
            length=c.num_hidden_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, self.dtype, name="layers")
        x = jnp.where(token_mask[..., None], x, 0)
        x, _ = layers(x, token_mask, distances, jnp.asarray(rows))
        return jnp.where(token_mask[..., None], x, 0)
