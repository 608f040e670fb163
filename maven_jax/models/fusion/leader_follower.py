"""Leader-follower attention: at each frame the modalities attend to one another."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import LayerNorm, dense, uniform_by_fan_in


class LeaderFollowerAttention(nn.Module):
    """The leader's own representation beside the attended ones of all modalities.

    At each frame the modalities are the tokens of an attention: queries, keys and values from a
    linear layer each, softmax(Q Kᵀ / √k) V + V, one LayerNorm over (modality, k). Source: Zhang et
    al. (ABAW2, 2021), and RJCMA's repository, which grew from theirs. Our addition: a modality that
    was not observed at a frame is not attended to there.

    Attributes:
        leader: modality that is passed on as it is.
        attention_dim: k.
        dtype: of the products and of the result; softmax and norm are float32.
        param_dtype: of the parameters.
    """

    leader: str
    attention_dim: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: dict[str, Float[Array, "b t _"]], masks: dict[str, Bool[Array, "b t"]]
    ) -> Float[Array, "b t d"]:
        """Returns [leader ; followers], d being the leader's width and k for each modality.

        Args:
            x: frames by modality, finite everywhere.
            masks: where each was observed; a frame at which none was attends to all alike.

        Raises:
            ValueError: the leader is not among the modalities.
        """
        if self.leader not in x:
            raise ValueError(f"leader {self.leader!r} is not among the modalities {', '.join(x)}")

        def tokens(role: str) -> Float[Array, "b t m k"]:
            rows = []
            for m, value in x.items():
                start = uniform_by_fan_in(value.shape[-1])
                layer = dense(
                    self.attention_dim,
                    ("embed", None),
                    name=f"{role}_{m}",
                    kernel_init=start,
                    bias_init=start,
                    dtype=self.dtype,
                    param_dtype=self.param_dtype,
                )
                rows.append(layer(value))
            return jnp.stack(rows, axis=2)

        query, key, value = (tokens(role) for role in ("query", "key", "value"))
        scores = jnp.einsum("btmk,btnk->btmn", query, key).astype(jnp.float32)
        observed = jnp.stack([masks[m] for m in x], axis=-1)[:, :, None]  # (b, t, 1, m)
        scores = jnp.where(observed, scores / self.attention_dim**0.5, -1e30)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        followers = jnp.einsum("btmn,btnk->btmk", weights, value) + value
        norm = LayerNorm(param_dtype=self.param_dtype, axes=(None, "norm"), name="norm")
        followers = norm(followers)
        flat = followers.reshape(*followers.shape[:2], -1).astype(self.dtype)
        return jnp.concatenate([x[self.leader].astype(self.dtype), flat], axis=-1)


class MultiHeadLeaderFollower(nn.Module):
    """`LeaderFollowerAttention` with heads and an output layer, as in ABAW3's LFAN.

    LayerNorm(dropout(W_o concat_{m, h}(softmax(Q Kᵀ / √(k/h)) V + V) + b)) beside the leader, the
    norm over all modalities together. Source: Zhang et al. (ABAW3, 2022), released code. Our
    addition: a modality that was not observed at a frame is not attended to there.

    Attributes:
        leader: modality that is passed on as it is.
        attention_dim: k, of each modality's queries, keys and values, all heads together.
        num_heads: h.
        dropout_rate: behind the output layer.
        dtype: of the products and of the result; softmax and norm are float32.
        param_dtype: of the parameters.
    """

    leader: str
    attention_dim: int
    num_heads: int
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: dict[str, Float[Array, "b t _"]],
        masks: dict[str, Bool[Array, "b t"]],
        *,
        deterministic: bool,
    ) -> Float[Array, "b t d"]:
        """Returns [leader ; followers], as `LeaderFollowerAttention` does.

        Raises:
            ValueError: the leader is not among the modalities, or the heads do not divide k.
        """
        if self.leader not in x:
            raise ValueError(f"leader {self.leader!r} is not among the modalities {', '.join(x)}")
        head_dim, rest = divmod(self.attention_dim, self.num_heads)
        if rest:
            raise ValueError(f"num_heads {self.num_heads} does not divide {self.attention_dim}")
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def tokens(role: str) -> Float[Array, "b t m h k"]:
            rows = [
                dense(self.attention_dim, ("embed", None), name=f"{role}_{m}", **dtypes)(value)
                for m, value in x.items()
            ]
            return jnp.stack(rows, axis=2).reshape(
                *rows[0].shape[:2], len(x), self.num_heads, head_dim
            )

        query, key, value = (tokens(role) for role in ("query", "key", "value"))
        scores = jnp.einsum("btmhk,btnhk->bthmn", query, key).astype(jnp.float32)
        observed = jnp.stack([masks[m] for m in x], axis=-1)[:, :, None, None]
        scores = jnp.where(observed, scores / head_dim**0.5, -1e30)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        followers = jnp.einsum("bthmn,btnhk->btmhk", weights, value) + value
        # Heads before modalities, as released.
        flat = jnp.swapaxes(followers, 2, 3).reshape(*followers.shape[:2], -1)
        flat = dense(flat.shape[-1], ("embed", None), name="out", **dtypes)(flat)
        flat = Dropout(self.dropout_rate, deterministic)(flat)
        flat = LayerNorm(name="norm", **dtypes)(flat)
        return jnp.concatenate([x[self.leader].astype(self.dtype), flat], axis=-1)
