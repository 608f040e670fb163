"""Cross-modal attention along every ordered pair of modalities; six pathways for three of them."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.attention import MultiHeadAttention
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import LayerNorm


class SixPathwayFusion(nn.Module):
    """Enhances each modality by attention to each of the others.

    E_m = LayerNorm(dropout((F_m + Σ_{n ≠ m} A_{m<-n}) / M)), where A_{m<-n} is multi-head attention
    with its own weights, query from m, keys and values from n, and M is the number of modalities.
    M modalities have M (M - 1) pathways; a single one has none and is only normalised. Source:
    MAVEN (CVPRW 2025).

    Attributes:
        modalities: names, in order.
        num_heads: of each pathway.
        dropout_rate: on attention weights and on the sum.
        shared_norm: one LayerNorm for all modalities (as released), or one each.
        dtype: of the matrix products and of the result.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    num_heads: int
    dropout_rate: float | int
    shared_norm: bool
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        embeddings: dict[str, Float[Array, "b _ d"]],
        masks: dict[str, Bool[Array, "b _"]],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b _ d"]]:
        """Returns the enhanced modalities, of the shapes they came in."""
        norm = partial(LayerNorm, param_dtype=self.param_dtype)
        shared = norm(name="norm") if self.shared_norm else None
        dropout = Dropout(self.dropout_rate, deterministic)
        enhanced = {}
        for m in self.modalities:
            total = embeddings[m].astype(jnp.float32)
            for n in self.modalities:
                if n == m:
                    continue
                pathway = MultiHeadAttention(
                    self.num_heads,
                    self.dropout_rate,
                    dtype=self.dtype,
                    param_dtype=self.param_dtype,
                    name=f"{m}_from_{n}",
                )
                total += pathway(
                    embeddings[m], embeddings[n], masks[n], deterministic=deterministic
                )
            norm_m = shared or norm(name=f"norm_{m}")
            result = norm_m(dropout(total / len(self.modalities))).astype(self.dtype)
            enhanced[m] = nn.with_logical_constraint(
                result, ("batch", "frames", "activation_embed")
            )
        return enhanced
