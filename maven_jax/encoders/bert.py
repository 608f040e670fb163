"""BERT (Devlin et al., 2019): token ids to contextual vectors, without pooler or task head."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from maven_jax.encoders.roberta import RobertaConfig, TokenEmbeddings
from maven_jax.layers.transformer import EncoderStack


@dataclass(frozen=True)
class BertConfig(RobertaConfig):
    """Sizes under Hugging Face's names and with its defaults."""

    vocab_size: int = 30522
    pad_token_id: int = 0

    @property
    def max_tokens(self) -> int:
        """Longest sequence: unlike RoBERTa's, positions count from the table's first row."""
        return self.max_position_embeddings


class Bert(nn.Module):
    """BERT encoder; of a pair of sentences, the first.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids: Int[Array, "b s"],
        token_mask: Bool[Array, "b s"],
        *,
        summed_layers: int = 1,
    ) -> Float[Array, "b s d"]:
        """Last hidden states, or sums of the last few layers'.

        Args:
            token_ids: padded with any valid id.
            token_mask: False for padding; its outputs are zero and nobody attends to it.
            summed_layers: how many layers' outputs are added up, counted from the last; 1 is the
                last hidden state, RJCMA's features take 4.

        Raises:
            ValueError: the sequence is longer than the position table, or there are not as many
                layers.
        """
        c = self.config
        b, s = token_ids.shape
        if s > c.max_tokens:
            raise ValueError(f"{s} tokens, but the encoder has positions for {c.max_tokens}")
        if not 1 <= summed_layers <= c.num_hidden_layers:
            raise ValueError(
                f"summed_layers={summed_layers}, but the encoder has {c.num_hidden_layers} layers"
            )
        x = TokenEmbeddings(
            c.vocab_size,
            c.max_position_embeddings,
            c.type_vocab_size,
            c.hidden_size,
            c.layer_norm_eps,
            self.dtype,
            name="embeddings",
        )(token_ids, jnp.broadcast_to(jnp.arange(s), (b, s)), jnp.zeros_like(token_ids))
        layers = EncoderStack(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            c.hidden_act,
            c.layer_norm_eps,
            dtype=self.dtype,
            name="encoder",
        )
        if summed_layers == 1:
            x = layers(x, token_mask)
        else:
            x = layers(x, token_mask, every_layer=True)[-summed_layers:].sum(0)
        return jnp.where(token_mask[..., None], x, 0)
