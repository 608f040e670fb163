"""From a representation per frame to valence and arousal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers import circumplex
from maven_jax.layers.batch_norm import MaskedBatchNorm
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import dense, uniform_by_fan_in
from maven_jax.layers.modalities import DenseOverModalities, over_frames
from maven_jax.types import AROUSAL, VALENCE, Prediction

_COLUMN = {"valence": VALENCE, "arousal": AROUSAL}


def _start_at(*values: float):
    return lambda key, shape, dtype=jnp.float32: jnp.broadcast_to(jnp.array(values, dtype), shape)


# At intensity 0 the angle has no gradient: polar heads start at a mild, pleasant, active emotion.
_BIAS_START = {
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
    def __call__(
        self,
        x: Float[Array, "b t d"] | dict[str, Float[Array, "b _ d"]],
        *,
        deterministic: bool,
    ) -> Prediction:
        """Returns the prediction for each of the t frames.

        Args:
            x: frames; or modalities of t frames or one vector each, to be put side by side.
            deterministic: no dropout; otherwise an rng "dropout" is needed.
        """
        if len(self.hidden_dims) != len(self.dropout_rates):
            raise ValueError(
                f"head: {len(self.hidden_dims)} hidden_dims need as many dropout_rates, "
                f"not {len(self.dropout_rates)}"
            )
        if self.outputs not in ("va", "polar", "polar_angle_first"):
            raise ValueError(f"head: outputs are 'va' or 'polar', not {self.outputs!r}")
        # Axis names alternate, so that splitting "mlp" splits every other layer's outputs.
        axes = ("embed", "mlp")
        hidden = _side_by_side(x)
        for layer, (width, rate) in enumerate(zip(self.hidden_dims, self.dropout_rates)):
            name = f"hidden_{layer}"
            if isinstance(x, dict):
                frames = max(part.shape[1] for part in x.values())
                x = DenseOverModalities(width, axes, self.dtype, self.param_dtype, name=name)(
                    x, frames
                )
            else:
                x = dense(width, axes, name=name, dtype=self.dtype, param_dtype=self.param_dtype)(x)
            x = Dropout(rate, deterministic)(nn.relu(x))
            axes = (axes[1], axes[0])
        output = dense(
            2,
            (axes[0], None),
            name="output",
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            bias_init=_BIAS_START[self.outputs],
        )(x.astype(jnp.float32))
        if self.outputs == "va":
            return Prediction(va=output, hidden=hidden)
        polar = output if self.outputs == "polar" else output[..., ::-1]
        return Prediction(va=circumplex.from_polar(polar), polar=polar, hidden=hidden)


class TanhHead(nn.Module):
    """Linear, BatchNorm, LeakyReLU, linear, tanh: (valence, arousal), or one of them.

    Source: RJCMA (ABAW6, 2024), released code, which trains a network for each dimension.

    Attributes:
        hidden_dim: width of the hidden layer.
        dimensions: those predicted, "valence", "arousal" or both; the column of the other is 0.
        negative_slope: of LeakyReLU.
        dtype: of the hidden layer; norm and outputs are float32.
        param_dtype: of the parameters.
    """

    hidden_dim: int
    dimensions: tuple[str, ...]
    negative_slope: float | int = 0.01
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], frame_mask: Bool[Array, "b t"], *, train: bool
    ) -> Prediction:
        """Returns the prediction for each frame; masked frames hold anything.

        Args:
            x: frames; those under the mask may hold anything.
            frame_mask: frames that the norm counts.
            train: see MaskedBatchNorm.

        Raises:
            ValueError: a dimension that does not exist, is given twice, or none at all.
        """
        names = tuple(self.dimensions)
        if not names or len(set(names)) < len(names) or not set(names) <= set(_COLUMN):
            raise ValueError(f"dimensions are {names}; choose from {tuple(_COLUMN)}")
        start, hidden = uniform_by_fan_in(x.shape[-1]), x
        x = dense(
            self.hidden_dim,
            ("embed", "mlp"),
            name="hidden",
            kernel_init=start,
            bias_init=start,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(jnp.where(frame_mask[..., None], x, 0))
        x = MaskedBatchNorm(param_dtype=self.param_dtype, name="norm")(x, frame_mask, train=train)
        start = uniform_by_fan_in(self.hidden_dim)
        output = dense(
            len(names),
            ("mlp", None),
            name="output",
            kernel_init=start,
            bias_init=start,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
        )(nn.leaky_relu(x, self.negative_slope))
        return Prediction(va=_in_columns(jnp.tanh(output), names), hidden=hidden)


class DimensionHeads(nn.Module):
    """Two ReLU MLPs per frame, one for valence and one for arousal. Source: RJCA, released code.

    Attributes:
        hidden_dims: widths of the hidden layers of each.
        dropout_rates: after each hidden layer, as many.
        dtype: of the hidden layers; the outputs are float32.
        param_dtype: of the parameters.
    """

    hidden_dims: tuple[int, ...]
    dropout_rates: tuple[float | int, ...]
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, deterministic: bool) -> Prediction:
        """Returns the prediction for each of the t frames."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        outputs = []
        for dimension in _COLUMN:
            y, axes = x, ("embed", "mlp")
            for layer, (width, rate) in enumerate(
                zip(self.hidden_dims, self.dropout_rates, strict=True)
            ):
                y = dense(width, axes, name=f"{dimension}_hidden_{layer}", **dtypes)(y)
                y = Dropout(rate, deterministic)(nn.relu(y))
                axes = (axes[1], axes[0])
            output = dense(
                1,
                (axes[0], None),
                name=f"{dimension}_output",
                dtype=jnp.float32,
                param_dtype=self.param_dtype,
            )
            outputs.append(output(y.astype(jnp.float32)))
        va = _in_columns(jnp.concatenate(outputs, axis=-1), tuple(_COLUMN))
        return Prediction(va=va, hidden=x)


def _side_by_side(x: Array | dict[str, Array]) -> Float[Array, "b t d"]:
    """Frames as they are; modalities of t frames or one vector each side by side."""
    return over_frames(x, max(p.shape[1] for p in x.values())) if isinstance(x, dict) else x


def _in_columns(output: Array, dimensions: Sequence[str]) -> Array:
    """(…, len(dimensions)) as (…, 2), valence and arousal in their columns and 0 elsewhere."""
    zeros = jnp.zeros_like(output[..., 0])
    columns = [zeros, zeros]
    for index, dimension in enumerate(dimensions):
        columns[_COLUMN[dimension]] = output[..., index]
    return jnp.stack(columns, axis=-1)


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
    return prediction.replace(va=repeat(prediction.va), polar=polar)
