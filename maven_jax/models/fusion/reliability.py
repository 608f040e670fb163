"""Reliability-aware fusion: each modality says at every frame how far it is to be trusted."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.linear import dense


class ReliabilityFusion(nn.Module):
    """Σ_m r_m V_m x_m with r = softmax over the observed modalities of u_m · tanh(W_m x_m + c).

    c is the mean of the observed modalities, through a layer of its own: how far a modality can be
    trusted also depends on whether the others say the same. Source of the idea: RAS (10th ABAW,
    2026); the formula is ours.

    Attributes:
        dtype: of the products and of the result; the softmax is float32.
        param_dtype: of the parameters.
    """

    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: dict[str, Float[Array, "b t d"]], masks: dict[str, Bool[Array, "b t"]]
    ) -> Float[Array, "b t d"]:
        """Returns the fused frames.

        Args:
            x: frames by modality, finite everywhere, of one width.
            masks: where each was observed; a frame at which none was takes all alike.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = next(iter(x.values())).shape[-1]
        observed = jnp.stack([masks[m] for m in x])  # (m, b, t)
        counts = jnp.maximum(observed.sum(0), 1)[..., None]
        total = jnp.where(observed[..., None], jnp.stack(list(x.values())), 0).sum(0)
        context = dense(width, ("embed", "mlp"), name="context", **dtypes)(total / counts)
        logits, values = [], []
        for m, frames in x.items():
            hidden = dense(width, ("embed", "mlp"), name=f"judge_{m}", **dtypes)(frames)
            logits.append(
                dense(1, ("mlp", None), name=f"trust_{m}", **dtypes)(jnp.tanh(hidden + context))
            )
            values.append(dense(width, ("embed", None), name=f"value_{m}", **dtypes)(frames))
        scores = jnp.concatenate(logits, axis=-1).astype(jnp.float32)  # (b, t, m)
        scores = jnp.where(jnp.moveaxis(observed, 0, -1), scores, -1e30)
        weights = jax.nn.softmax(scores, axis=-1)
        return sum(
            weights[..., i, None].astype(self.dtype) * value for i, value in enumerate(values)
        )  # pyright: ignore
