"""Gates that choose, per frame, among the steps X_0 … X_l of a recursion.

Each takes modality -> (l+1, b, t, d_m) and returns modality -> (b, t, d_m), zero on masked frames.
Every modality has a gate of its own. With l = 0 there is one step to choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.linear import dense
from maven_jax.layers.lstm import Blstm


def weighted_sum(
    logits: Float[Array, "l b t"], steps: Float[Array, "l b t d"], frame_mask: Bool[Array, "b t"]
) -> Float[Array, "b t d"]:
    """Returns Σ_i softmax_i(logits) X_i, the softmax in float32; zero on masked frames."""
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=0)
    chosen = jnp.einsum("lbt,lbtd->btd", weights, steps.astype(jnp.float32))
    return jnp.where(frame_mask[..., None], chosen, 0).astype(steps.dtype)


def _valid(steps: Array, frame_mask: Array) -> Array:
    return jnp.where(frame_mask[..., None], steps, 0)


class SoftmaxGate(nn.Module):
    """One gate over all steps: relu(Σ_i w_i X_i), w = softmax((W X_l + b) / temperature).

    X_0, which no step has changed, is among the choices: modalities that do not complement each
    other can stay apart. Source: GRJCA (Praveen et al., 2025).

    Attributes:
        temperature: 0.1 in the paper.
        dtype: of the product.
        param_dtype: of the parameters.
    """

    temperature: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the gated features; nothing here is random."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        gated = {}
        for m, value in steps.items():
            value = _valid(value, frame_mask)
            logits = dense(len(value), ("embed", None), name=f"gate_{m}", **dtypes)(value[-1])
            logits = jnp.moveaxis(logits.astype(jnp.float32) / self.temperature, -1, 0)
            gated[m] = nn.relu(weighted_sum(logits, value, frame_mask))
        return gated


class HierarchicalGate(nn.Module):
    """A gate behind each step, among all features up to there, then one over these stages.

    Z_i = relu(Σ w X) over X_0 … X_i with w = softmax((W_i X_i + b_i) / temperature), for i = 1 … l;
    then relu of the weighted sum of Z_1 … Z_l with softmax((W X_l + b) / temperature): the last
    gate, too, asks the ungated X_l. The recursion itself runs on the ungated features. Source:
    HGRJCA (Praveen et al., 2025), as its authors' code has it for l = 2. l = 0 has no gates, only
    the relu.

    Attributes:
        temperature: 0.1 in the paper.
        dtype: of the products.
        param_dtype: of the parameters.
    """

    temperature: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the gated features; nothing here is random."""
        gated = {}
        for m, value in steps.items():
            value = _valid(value, frame_mask)
            if len(value) == 1:
                gated[m] = nn.relu(value[0])
                continue
            stages = [
                self._gate(f"stage_{i}_{m}", value[i], value[: i + 1], frame_mask)
                for i in range(1, len(value))
            ]
            gated[m] = self._gate(f"gate_{m}", value[-1], jnp.stack(stages), frame_mask)
        return gated

    def _gate(self, name: str, asked: Array, choices: Array, frame_mask: Array) -> Array:
        """Returns relu of the choices' (l, b, t, d) sum, weighted by what (b, t, d) says."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        logits = dense(len(choices), ("embed", None), name=name, **dtypes)(asked)
        logits = jnp.moveaxis(logits.astype(jnp.float32) / self.temperature, -1, 0)
        return nn.relu(weighted_sum(logits, choices, frame_mask))


class RecursionBlstm(nn.Module):
    """A BLSTM that runs over the steps of each frame; its states weight the steps.

    w = softmax_i(v · h_i + c) with h_i the two states at step i; Σ_i w_i X_i. Source: TAGF (Lee et
    al., 2025). The BLSTM runs along the recursion: frames do not see each other here. X_0 is one of
    the steps, as in GRJCA.

    Attributes:
        hidden_dim: of each direction.
        dtype: of the products.
        param_dtype: of the parameters.
    """

    hidden_dim: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the weighted features."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        weighted = {}
        for m, value in steps.items():
            value = _valid(value, frame_mask)
            count, b, t, width = value.shape
            frames = jnp.moveaxis(value, 0, 2).reshape(b * t, count, width)
            # Masked frames are zeros by now, and no mask is needed: all their steps are alike.
            states = Blstm(
                self.hidden_dim,
                num_layers=1,
                dropout_rate=0,
                learned_initial_state=False,
                name=f"blstm_{m}",
                **dtypes,
            )(frames, jnp.ones((b * t, count), bool), deterministic=deterministic)
            logits = dense(1, ("embed", None), name=f"gate_{m}", **dtypes)(states)
            logits = jnp.moveaxis(logits.reshape(b, t, count), -1, 0)
            weighted[m] = weighted_sum(logits, value, frame_mask)
        return weighted
