"""Joint correlation: each modality is updated by how it correlates with all of them together.

The papers and the released code mean three different things by it; all three are here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.processor import on_one_processor
from maven_jax.kernels.random_bits import keep_mask
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import XAVIER, dense

# Scores up to this size stay near a processor's cores.
_IN_CACHE = 2**24

CHOICES = {
    "correlation": ("channel", "time", "dense"),
    "joint": ("concat", "linear"),
    "query": ("linear", "identity"),
}


class JointCorrelation(nn.Module):
    """One application of joint correlation to any number of modalities.

    With X_m (T, d_m) of modality m and J (T, d) of all of them, per modality:

    * `channel` (the papers of JCA and RJCA): C = tanh(X_mᵀ W_j J / √d), (d_m, d);
      H = relu(W_x X_m + W_c Cᵀ), (k, d_m); X_m + W_hᵀ H. Parameters `{m}_joint` W_j (T, T),
      `{m}_input` W_x (k, T), `{m}_correlation` W_c (k, d), `{m}_output` W_h (k, T).
    * `time` (the paper of RJCMA, ABAW6, 2024): C = tanh(X_m W_j Jᵀ / √d), (T, T);
      H = relu(Cᵀ W_c X_m), (T, d_m); X_m + W_h H. Parameters `{m}_joint` W_j (d_m, d),
      `{m}_correlation` W_c (T, T), `{m}_output` W_h (T, T).
    * `dense` (the released code of both): S = dropout(tanh((K X_m)ᵀ Q / √d)), (d_m, d);
      U = relu(tanh((X_m W_v + b) S)), (T, d); X_m + dropout(relu(U W_o + b)). Layers `{m}_key`
      K (over time, with bias), `{m}_value`, `{m}_output`, and `query`, which all modalities share.

    The parameters that mix frames tie the module to windows of `window_length` frames; shorter
    ones come padded and masked. Masked frames are zero rows of X_m, J and Q, so that they take
    part in no sum over frames, and come out as zeros.

    Attributes:
        correlation: "channel", "time" or "dense".
        window_length: T.
        attention_dim: k; `channel` only.
        joint: J is the modalities side by side in the order of `x`, "concat", or a linear layer of
            that, "linear".
        joint_dim: d if `joint` is "linear".
        query: Q = J W_q + b, "linear" (release of RJCA), or J itself, "identity" (release of
            RJCMA); `dense` only.
        dropout_rate: where `dense` says dropout; for the other two, on the update.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    correlation: str
    window_length: int
    attention_dim: int
    joint: str
    joint_dim: int
    query: str
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Mapping[str, Float[Array, "b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the updated modalities, of the shapes they came in, zero on masked frames.

        Raises:
            ValueError: t is not `window_length`, or an attribute is none of those allowed.
        """
        self._check(frame_mask.shape[1])
        valid = frame_mask[..., None]
        x = {m: jnp.where(valid, value, 0).astype(self.dtype) for m, value in x.items()}
        joint = jnp.concatenate(list(x.values()), axis=-1)
        if self.joint == "linear":
            joint = jnp.where(valid, self._dense(self.joint_dim, "joint")(joint), 0)
        update = {"channel": self._channel, "time": self._time, "dense": self._dense_update}
        other = joint
        if self.correlation == "dense" and self.query == "linear":
            # The bias would let masked frames in.
            other = jnp.where(valid, self._dense(joint.shape[-1], "query")(joint), 0)
        dropout = Dropout(self.dropout_rate, deterministic)
        updated = {}
        for m, value in x.items():
            added = dropout(update[self.correlation](m, value, other, dropout))
            updated[m] = jnp.where(valid, value + added, 0)
        return updated

    def _check(self, t: int) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(allowed)}")
        if t != self.window_length:
            raise ValueError(
                f"correlation={self.correlation!r} is tied to windows of T frames by its"
                f" parameters: window_length={self.window_length}, but these have {t}"
            )

    def _channel(self, m: str, x: Array, joint: Array, dropout: Dropout) -> Array:
        t, k, d = self.window_length, self.attention_dim, joint.shape[-1]
        mixed = jnp.einsum("bsc,st->btc", x, self._weight(f"{m}_joint", (t, t), (None, None)))
        correlation = jnp.tanh(jnp.einsum("btc,btd->bcd", mixed, joint) / d**0.5)
        hidden = jnp.einsum("kt,btc->bkc", self._weight(f"{m}_input", (k, t), (None, None)), x)
        weight = self._weight(f"{m}_correlation", (k, d), (None, "mlp"))
        hidden = nn.relu(hidden + jnp.einsum("kd,bcd->bkc", weight, correlation))
        return jnp.einsum("kt,bkc->btc", self._weight(f"{m}_output", (k, t), (None, None)), hidden)

    def _time(self, m: str, x: Array, joint: Array, dropout: Dropout) -> Array:
        t, d = self.window_length, joint.shape[-1]
        projected = x @ self._weight(f"{m}_joint", (x.shape[-1], d), ("embed", "mlp"))
        correlation = jnp.tanh(jnp.einsum("bsd,btd->bst", projected, joint) / d**0.5)
        mixed = jnp.einsum("rs,bsc->brc", self._weight(f"{m}_correlation", (t, t), (None, None)), x)
        hidden = nn.relu(jnp.einsum("bst,bsc->btc", correlation, mixed))
        # `hidden` sums T correlations where the other forms saturate: from Xavier's start alone
        # each step would make the features some √T/2 times larger, and l steps that to the l.
        start = nn.initializers.variance_scaling(1 / t, "fan_avg", "uniform")
        weight = self._weight(f"{m}_output", (t, t), (None, None), start)
        return jnp.einsum("ts,bsc->btc", weight, hidden)

    def _dense_update(self, m: str, x: Array, query: Array, dropout: Dropout) -> Array:
        width, d = x.shape[-1], query.shape[-1]
        key = self._dense(self.window_length, f"{m}_key", (None, None))(jnp.swapaxes(x, 1, 2))
        value = self._dense(width, f"{m}_value", ("embed", None))(x)
        kept, probability = None, 1.0
        if dropout.rate and not dropout.deterministic:
            shape = (len(x), width, d)
            kept, probability = keep_mask(self.make_rng("dropout"), dropout.rate, shape)
        # Divided before the product, where it is smaller.
        attended = _attend(key / d**0.5, query, value, kept, probability)
        attended = nn.relu(jnp.tanh(attended))
        return nn.relu(self._dense(width, f"{m}_output", ("mlp", "embed"))(attended))

    def _dense(
        self, features: int, name: str, axes: tuple[str | None, str | None] = ("embed", "mlp")
    ) -> nn.Dense:
        return dense(features, axes, name=name, dtype=self.dtype, param_dtype=self.param_dtype)

    def _weight(
        self,
        name: str,
        shape: tuple[int, int],
        axes: Sequence[str | None],
        start: nn.initializers.Initializer = XAVIER,
    ) -> Array:
        start = nn.with_logical_partitioning(start, tuple(axes))
        weight: Any = self.param(name, start, shape, self.param_dtype)
        return jnp.asarray(weight, self.dtype)


def _attend(
    key: Float[Array, "b c t"],
    query: Float[Array, "b t d"],
    value: Float[Array, "b t c"],
    kept: Bool[Array, "b c d"] | None,
    probability: float,
) -> Float[Array, "b t d"]:
    """Returns value · dropout(tanh(key · query)), of which `kept` says what stays.

    With many channels and few frames the scores are much larger than all they are made from. Where
    they would not fit into a processor's cache they are made window by window, and again in the
    backward pass, rather than written to memory a dozen times.
    """

    def one(window: tuple[Array, Array, Array, Array | None]) -> Array:
        key, query, value, kept = window
        scores = jnp.tanh(key @ query)
        if kept is not None:
            scores = jnp.where(kept, scores / jnp.asarray(probability, scores.dtype), 0)
        return value @ scores

    everything = (key, query, value, kept)
    bytes_of_scores = key.shape[0] * key.shape[1] * query.shape[2] * key.dtype.itemsize
    if bytes_of_scores <= _IN_CACHE or not on_one_processor():
        return one(everything)
    return lax.map(jax.checkpoint(one, prevent_cse=False), everything)
