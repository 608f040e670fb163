"""MPNet (Song et al., 2020): RoBERTa with a bias of relative positions in all its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from maven_jax.encoders.roberta import Roberta, RobertaConfig
from maven_jax.errors import UserError
from maven_jax.layers.relative_position import position_bias

# What the published network has, whatever its config says.
_BUCKETS, _MAX_DISTANCE, _PAD = 32, 128, 1


@dataclass(frozen=True)
class MpnetConfig(RobertaConfig):
    """Sizes under Hugging Face's names and with its defaults; there are no token types."""

    vocab_size: int = 30527
    type_vocab_size: int = 0
    relative_attention_num_buckets: int = _BUCKETS

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> MpnetConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: as `RobertaConfig`, or positions that its code has not.
        """
        self = super().from_hf({k: v for k, v in config.items() if k != "type_vocab_size"})
        assert isinstance(self, cls)
        for key, only in (("relative_attention_num_buckets", _BUCKETS), ("pad_token_id", _PAD)):
            if getattr(self, key) != only:
                raise UserError(f"config.json: {key} is {getattr(self, key)}, expected {only}")
        return self


class Mpnet(Roberta):
    """MPNet encoder; attributes and call are RoBERTa's."""

    def _position_bias(self, num_tokens: int) -> Float[Array, "h t t"]:
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("position", "heads"))
        shape = (_BUCKETS, self.config.num_attention_heads)
        table = jnp.asarray(self.param("relative_position_bias", init, shape))
        return position_bias(table, num_tokens, _MAX_DISTANCE)
