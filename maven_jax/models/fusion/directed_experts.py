"""A mixture of experts over directed pairs of modalities: what one can learn from another."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.activations import gelu
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import LayerNorm, dense


class DirectedExperts(nn.Module):
    """x_m + Σ_n g_mn E_mn([x_m ; x_n]) for each modality m, n running over all, itself included.

    An expert E_mn is an MLP per frame for one direction: what audio adds to the face is another
    matter than what the face adds to audio. The router g_m = softmax_n(R_m x_m) chooses among the
    modalities observed at the frame. Source of the idea: RAS (10th ABAW, 2026); the formula is
    ours.

    Attributes:
        expert_dim: inner width of an expert.
        dropout_rate: on what the experts add.
        dtype: of the products and of the result; softmax and norms are float32.
        param_dtype: of the parameters.
    """

    expert_dim: int
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: dict[str, Float[Array, "b t d"]],
        masks: dict[str, Bool[Array, "b t"]],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t d"]]:
        """Returns the modalities, each with what the experts add, normalised.

        Args:
            x: frames by modality, finite everywhere, of one width.
            masks: where each was observed; a frame at which none was asks all alike.
            deterministic: no dropout; otherwise an rng "dropout" is needed.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        observed = jnp.stack([masks[m] for m in x], axis=-1)  # (b, t, m)
        dropout = Dropout(self.dropout_rate, deterministic)
        enhanced = {}
        for m, frames in x.items():
            scores = dense(len(x), ("embed", None), name=f"router_{m}", **dtypes)(frames)
            scores = jnp.where(observed, scores.astype(jnp.float32), -1e30)
            shares = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
            added = jnp.zeros_like(frames)
            for i, (n, others) in enumerate(x.items()):
                name = f"{m}_from_{n}"
                pair = jnp.concatenate([frames, others], axis=-1)
                hidden = gelu(
                    dense(self.expert_dim, ("embed", "mlp"), name=f"{name}_up", **dtypes)(pair)
                )
                expert = dense(frames.shape[-1], ("mlp", "embed"), name=f"{name}_down", **dtypes)
                added += shares[..., i, None] * expert(hidden)
            enhanced[m] = LayerNorm(name=f"norm_{m}", **dtypes)(frames + dropout(added))
        return enhanced
