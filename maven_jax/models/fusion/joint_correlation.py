"""Joint correlation: each modality is updated by how it correlates with all of them together.

The papers and the released code mean three different things by it; all three are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.by_window import by_window
from maven_jax.kernels.random_bits import keep_mask
from maven_jax.kernels.weighted_correlation import weighted_correlation
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import XAVIER, Linear, dense
from maven_jax.models.fusion.recursion_config import RecursionConfig


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

    J is the modalities side by side in the order of `x`, or a linear layer of that.

    The parameters that mix frames tie the module to windows of `window_length` frames; shorter
    ones come padded and masked. Masked frames are zero rows of X_m, J and Q, so that they take
    part in no sum over frames, and come out as zeros.

    Attributes:
        config: form and sizes.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    config: RecursionConfig
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
            ValueError: t is not `window_length`.
        """
        c, t = self.config, frame_mask.shape[1]
        if t != c.window_length:
            raise ValueError(
                f"correlation={c.correlation!r} is tied to windows of T frames by its"
                f" parameters: window_length={c.window_length}, but these have {t}"
            )
        valid = frame_mask[..., None]
        x = {m: jnp.where(valid, value, 0).astype(self.dtype) for m, value in x.items()}
        joint = jnp.concatenate(list(x.values()), axis=-1)
        # Biases would let masked frames in.
        if c.joint == "linear":
            joint = jnp.where(valid, self._dense(c.joint_dim, "joint")(joint), 0)
        if c.correlation == "dense" and c.query == "linear":
            joint = jnp.where(valid, self._dense(joint.shape[-1], "query")(joint), 0)
        update = {
            "channel": self._channel,
            "time": self._time,
            "dense": partial(self._dense_update, deterministic=deterministic),
        }[c.correlation]
        dropout = Dropout(c.correlation_dropout_rate, deterministic)
        updated = {}
        for m, value in x.items():
            added = dropout(update(m, value, joint))
            updated[m] = jnp.where(valid, value + added, 0)
        return updated

    def _channel(self, m: str, x: Array, joint: Array) -> Array:
        t, k, d = x.shape[1], self.config.attention_dim, joint.shape[-1]
        # Divided before the product, where it is smaller.
        mixed = jnp.einsum("bsc,st->btc", x, self._weight(f"{m}_joint", (t, t))) / d**0.5
        of_input = jnp.einsum("kt,btc->bkc", self._weight(f"{m}_input", (k, t)), x)
        weight = self._weight(f"{m}_correlation", (k, d), axes=(None, "mlp"))
        hidden = nn.relu(of_input + weighted_correlation(mixed, joint, weight))
        return jnp.einsum("kt,bkc->btc", self._weight(f"{m}_output", (k, t)), hidden)

    def _time(self, m: str, x: Array, joint: Array) -> Array:
        t, d = x.shape[1], joint.shape[-1]
        weight = self._weight(f"{m}_joint", (x.shape[-1], d), axes=("embed", "mlp")) / d**0.5
        # The frames meet in the narrower of the two widths.
        if x.shape[-1] < d:
            scores = jnp.einsum("bsc,btc->bst", x, joint @ weight.T)
        else:
            scores = jnp.einsum("bsd,btd->bst", x @ weight, joint)
        correlation = jnp.tanh(scores)
        mixed = jnp.einsum("rs,bsc->brc", self._weight(f"{m}_correlation", (t, t)), x)
        hidden = nn.relu(jnp.einsum("bst,bsc->btc", correlation, mixed))
        # `hidden` sums T correlations where the other forms saturate: from Xavier's start alone
        # each step would make the features some √T/2 times larger, and l steps that to the l.
        start = nn.initializers.variance_scaling(1 / t, "fan_avg", "uniform")
        return jnp.einsum("ts,bsc->btc", self._weight(f"{m}_output", (t, t), start=start), hidden)

    def _dense_update(self, m: str, x: Array, query: Array, *, deterministic: bool) -> Array:
        (b, t, width), d = x.shape, query.shape[-1]
        key = self._dense(t, f"{m}_key", (None, None))(jnp.swapaxes(x, 1, 2))
        value = self._dense(width, f"{m}_value", ("embed", None))(x)
        keep, rate = None, self.config.correlation_dropout_rate
        if rate and not deterministic:
            # Drawn for all windows together, so that it does not matter how they are taken.
            keep, probability = keep_mask(self.make_rng("dropout"), rate, (b, width, d))
            value /= jnp.asarray(probability, value.dtype)
        num_bytes = b * width * d * key.dtype.itemsize
        # Divided before the product, where it is smaller.
        mixed = by_window(_attend, self, key / d**0.5, query, value, keep, num_bytes=num_bytes)
        mixed = nn.relu(jnp.tanh(mixed))
        return nn.relu(self._dense(width, f"{m}_output", ("mlp", "embed"))(mixed))

    def _dense(
        self, features: int, name: str, axes: tuple[str | None, str | None] = ("embed", "mlp")
    ) -> Linear:
        return dense(features, axes, name=name, dtype=self.dtype, param_dtype=self.param_dtype)

    def _weight(
        self,
        name: str,
        shape: tuple[int, int],
        *,
        axes: tuple[str | None, str | None] = (None, None),
        start: nn.initializers.Initializer = XAVIER,
    ) -> Array:
        start = nn.with_logical_partitioning(start, axes)
        weight: Any = self.param(name, start, shape, self.param_dtype)
        return jnp.asarray(weight, self.dtype)


def _attend(
    _: nn.Module,
    key: Float[Array, "b c t"],
    query: Float[Array, "b t d"],
    value: Float[Array, "b t c"],
    keep: Bool[Array, "b c d"] | None,
) -> Float[Array, "b t d"]:
    """Returns value · tanh(key · query), without the correlations that `keep` leaves out."""
    scores = jnp.tanh(key @ query)
    return value @ (scores if keep is None else jnp.where(keep, scores, 0))
