"""RoBERTa (Liu et al., 2019): token ids to contextual vectors, without pooler or task head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from maven_jax.encoders import hf_config
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.linear import LayerNorm
from maven_jax.layers.transformer import EncoderStack


@dataclass(frozen=True)
class RobertaConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 1

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> RobertaConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible, or the config asks for what is not implemented.
        """
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "num_attention_heads", "hidden_size")
        activation(self.hidden_act)
        kind = config.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise UserError(f"config.json: position_embedding_type {kind!r} is not supported")
        if config.get("is_decoder"):
            raise UserError("config.json: is_decoder is true; only encoders are supported")
        return self

    @property
    def max_tokens(self) -> int:
        """Longest sequence: the first pad_token_id + 1 positions are never used by a token."""
        return self.max_position_embeddings - self.pad_token_id - 1


def embedding_table(name: str, rows: int, width: int) -> nn.Embed:
    """A table of vectors, (rows, width), inside a compact module; words are split by `vocab`.

    Args:
        name: of its parameters; `word` for that of words.
        rows: how many there are.
        width: of each.
    """
    axes = ("vocab" if name == "word" else "position", "embed")
    init = nn.with_logical_partitioning(nn.initializers.normal(0.02), axes)
    return nn.Embed(rows, width, embedding_init=init, name=name)


class TokenEmbeddings(nn.Module):
    """Sum of word, position and type embeddings, normalised.

    Attributes:
        vocab_size: words.
        max_positions: rows of the position table.
        type_vocab_size: token types; 0 for none.
        embed_dim: width.
        norm_eps: of the norm.
        dtype: of the output.
    """

    vocab_size: int
    max_positions: int
    type_vocab_size: int
    embed_dim: int
    norm_eps: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "b s"],
        position_ids: Int[Array, "b s"],
        type_ids: Int[Array, "b s"],
    ) -> Float[Array, "b s d"]:
        def embed(name: str, rows: int, ids: Array) -> Array:
            return embedding_table(name, rows, self.embed_dim)(ids)

        x = embed("word", self.vocab_size, token_ids)
        if self.type_vocab_size:
            x = x + embed("type", self.type_vocab_size, type_ids)
        x = x + embed("position", self.max_positions, position_ids)
        return LayerNorm(self.norm_eps, self.dtype, name="norm")(x)


class Roberta(nn.Module):
    """RoBERTa encoder.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: RobertaConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b s"], token_mask: Bool[Array, "b s"]
    ) -> Float[Array, "b s d"]:
        """Last hidden states.

        Args:
            token_ids: padded with the config's `pad_token_id`.
            token_mask: False for padding; its outputs are zero and nobody attends to it.

        Raises:
            ValueError: the sequence is longer than the position table.
        """
        c = self.config
        if token_ids.shape[1] > c.max_tokens:
            raise ValueError(
                f"{token_ids.shape[1]} tokens, but the encoder has positions for {c.max_tokens}"
            )
        # Positions count tokens that are not padding and start behind the padding's own.
        real = token_ids != c.pad_token_id
        position_ids = jnp.cumsum(real, axis=1) * real + c.pad_token_id
        x = TokenEmbeddings(
            c.vocab_size,
            c.max_position_embeddings,
            c.type_vocab_size,
            c.hidden_size,
            c.layer_norm_eps,
            self.dtype,
            name="embeddings",
        )(token_ids, position_ids, jnp.zeros_like(token_ids))
        x = EncoderStack(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            c.hidden_act,
            c.layer_norm_eps,
            dtype=self.dtype,
            name="encoder",
        )(x, token_mask, self._position_bias(token_ids.shape[1]))
        return jnp.where(token_mask[..., None], x, 0)

    def _position_bias(self, num_tokens: int) -> Float[Array, "h t t"] | None:
        """What all layers add to the scores of their attention."""
        return None
