"""From a representation per frame to valence and arousal."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax import circumplex
from maven_jax.models.layers import dense
from maven_jax.types import Prediction


def _start_at(*values: float):
    return lambda key, shape, dtype=jnp.float32: jnp.broadcast_to(jnp.array(values, dtype), shape)


# At intensity 0 the angle has no gradient: polar heads start at a mild, pleasant, active emotion.
_START = {
    "va": nn.initializers.zeros_init(),
    "polar": _start_at(0.3, jnp.pi / 4),
    "polar_angle_first": _start_at(jnp.pi / 4, 0.3),
}


class RegressionHead(nn.Module):
    """A ReLU MLP per frame, whose two outputs are (valence, arousal) or polar coordinates.

    Source: MAVEN (CVPRW 2025). A polar head's (valence, arousal) has no seam at ±π.

    Attributes:
        hidden_dims: widths of the hidden layers; two of them make the paper's three-layer head.
        dropout_rates: after each hidden layer, as many.
        outputs: "va": (valence, arousal). "polar": (intensity, angle). "polar_angle_first":
            (angle, intensity), the order of MAVEN's released weights.
        dtype: of the hidden layers; the outputs are float32.
        param_dtype: of the parameters.
    """

    hidden_dims: tuple[int, ...]
    dropout_rates: tuple[float | int, ...]
    outputs: Literal["va", "polar", "polar_angle_first"]
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, deterministic: bool) -> Prediction:
        """Returns the prediction for each of the t frames."""
        if len(self.hidden_dims) != len(self.dropout_rates):
            raise ValueError(
                f"head: {len(self.hidden_dims)} hidden_dims need as many dropout_rates, "
                f"not {len(self.dropout_rates)}"
            )
        if self.outputs not in ("va", "polar", "polar_angle_first"):
            raise ValueError(f"head: outputs are 'va' or 'polar', not {self.outputs!r}")
        # Axis names alternate, so that splitting "mlp" splits every other layer's outputs.
        axes = ("embed", "mlp")
        for layer, (width, rate) in enumerate(zip(self.hidden_dims, self.dropout_rates)):
            x = dense(
                width,
                axes,
                name=f"hidden_{layer}",
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )(x)
            x = nn.Dropout(rate, deterministic=deterministic)(nn.relu(x))
            axes = (axes[1], axes[0])
        output = dense(
            2,
            (axes[0], None),
            name="output",
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            bias_init=_START[self.outputs],
        )(x.astype(jnp.float32))
        if self.outputs == "va":
            return Prediction(va=output)
        polar = output if self.outputs == "polar" else output[..., ::-1]
        return Prediction(va=circumplex.from_polar(polar), polar=polar)


def masked_mean_over_frames(
    x: Float[Array, "b t d"], mask: Bool[Array, "b t"]
) -> Float[Array, "b 1 d"]:
    """Returns the mean of the valid frames, float32; zeros for a window without any."""
    keep = mask[..., None]
    total = jnp.where(keep, x.astype(jnp.float32), 0.0).sum(axis=1, keepdims=True)
    return total / jnp.maximum(keep.sum(axis=1, keepdims=True), 1)


def repeat_over_frames(prediction: Prediction, num_frames: int) -> Prediction:
    """Returns one prediction per window as the same prediction for each of its frames."""

    def repeat(leaf):
        return jnp.broadcast_to(leaf, (leaf.shape[0], num_frames, leaf.shape[2]))

    polar = None if prediction.polar is None else repeat(prediction.polar)
    return Prediction(va=repeat(prediction.va), polar=polar)
