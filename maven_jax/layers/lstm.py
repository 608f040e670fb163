"""Temporal models of one modality: causal convolutions and bidirectional LSTMs over masked frames.

Each takes (b, t, c) and a mask (b, t), True where a frame was observed; what lies under the mask
may be NaN and reaches neither outputs nor gradients. Outputs have all t frames and are finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.lstm import run_lstms
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import dense, uniform_by_fan_in


def _two_biases(hidden_dim: int) -> Callable[..., Array]:
    """Returns the start of the sum of two biases: torch's LSTMs add two, we store their sum."""
    start = uniform_by_fan_in(hidden_dim)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        first, second = jax.random.split(key)
        return start(first, shape, dtype) + start(second, shape, dtype)

    return init


class LstmLayer(nn.Module):
    """What one direction of one LSTM layer has of its own: the projection, the recurrent weights.

    The inputs of all frames are projected in one product. Gates lie in torch's order: input,
    forget, cell, output.

    Attributes:
        hidden_dim: h.
        dtype: of the products.
        param_dtype: of the parameters.
    """

    hidden_dim: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"]
    ) -> tuple[Float[Array, "b t g"], Float[Array, "h g"]]:
        """Returns the inputs' part of the gates, g = 4 h, and the weights of the hidden state."""
        gates = 4 * self.hidden_dim
        start = uniform_by_fan_in(self.hidden_dim)
        project = dense(
            gates,
            ("embed", None),
            name="input",
            kernel_init=start,
            bias_init=_two_biases(self.hidden_dim),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        recurrent = self.param(
            "recurrent",
            nn.with_logical_partitioning(start, ("embed", None)),
            (self.hidden_dim, gates),
            self.param_dtype,
        ).astype(self.dtype)
        # Gathered on every device before the loop, not once at each frame within it.
        return project(x), nn.with_logical_constraint(recurrent, (None, None))


class Blstm(nn.Module):
    """LSTM layers, each running over the frames both ways.

    Size of the program and time to compile it do not depend on t. A masked frame leaves the states
    of both directions as they are, and its output is the held state: masked frames behind the end
    of a window change nothing.

    Attributes:
        hidden_dim: h, of each direction.
        num_layers: of LSTMs, each on the states of the one before.
        dropout_rate: between layers.
        learned_initial_state: the states start at parameters, otherwise at zero.
        bidirectional: run both ways, otherwise only forwards.
        dtype: of the products and of the result; states are float32.
        param_dtype: of the parameters.
    """

    hidden_dim: int
    num_layers: int
    dropout_rate: float | int
    learned_initial_state: bool
    bidirectional: bool = True
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Returns the last layer's states, forward beside backward: d = 2 h (h if one way)."""
        directions = ("forward", "backward") if self.bidirectional else ("forward",)
        ways, reverse = len(directions), tuple(way == "backward" for way in directions)
        shape = (2, self.num_layers, ways, self.hidden_dim)
        if self.learned_initial_state:
            initial = self.param(
                "initial_state",
                nn.with_logical_partitioning(_xavier_rows, (None, "layers", None, None)),
                shape,
                self.param_dtype,
            ).astype(jnp.float32)
        else:
            initial = jnp.zeros(shape, jnp.float32)
        initial = jnp.broadcast_to(initial[:, :, :, None], (*shape[:3], x.shape[0], shape[3]))

        x = jnp.where(mask[..., None], x, 0).astype(self.dtype)
        for layer in range(self.num_layers):
            if layer:
                x = Dropout(self.dropout_rate, deterministic)(x)
            lstms = [
                LstmLayer(
                    self.hidden_dim, self.dtype, self.param_dtype, name=f"layer_{layer}_{way}"
                )(x)
                for way in directions
            ]
            frames, recurrent = zip(*lstms)
            start = [(initial[0, layer, way], initial[1, layer, way]) for way in range(ways)]
            states = run_lstms(reverse, frames, recurrent, start, mask)
            x = jnp.concatenate(states, axis=-1).astype(self.dtype)
        return x


def _xavier_rows(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Xavier's uniform start of one matrix whose rows are all states, as in RJCA's release."""
    rows = (shape[0] * shape[1] * shape[2], shape[3])
    return nn.initializers.xavier_uniform()(key, rows, dtype).reshape(shape)


class ResidualBlstm(nn.Module):
    """A linear layer on the input beside a BLSTM's states, and every frame to unit length.

    l2norm(Linear(dropout([x; BLSTM(x)]))). Source: U-BLSTM and J-BLSTM in RJCA's released code.

    Attributes:
        out_dim: width of the result; each direction has half of it. Even.
        num_layers: of the BLSTM.
        dropout_rate: between its layers, and before the linear layer.
        learned_initial_state: see Blstm.
        dtype: of the products and of the result; lengths are float32.
        param_dtype: of the parameters.
    """

    out_dim: int
    num_layers: int
    dropout_rate: float | int
    learned_initial_state: bool
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Returns vectors of length one.

        Raises:
            ValueError: `out_dim` is odd.
        """
        if self.out_dim % 2:
            raise ValueError(
                f"out_dim={self.out_dim} is odd: a BLSTM has two directions of equal width"
            )
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = jnp.where(mask[..., None], x, 0).astype(self.dtype)
        states = Blstm(
            self.out_dim // 2,
            self.num_layers,
            self.dropout_rate,
            self.learned_initial_state,
            name="blstm",
            **dtypes,
        )(x, mask, deterministic=deterministic)
        x = Dropout(self.dropout_rate, deterministic)(jnp.concatenate([x, states], axis=-1))
        return l2_normalize(dense(self.out_dim, ("mlp", "embed"), name="output", **dtypes)(x))


def l2_normalize(x: Float[Array, "*shape d"]) -> Float[Array, "*shape d"]:
    """Returns vectors of length one along the last axis; zeros stay zeros."""
    square = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    # torch's F.normalize divides by max(norm, 1e-12).
    return (x * lax.rsqrt(jnp.maximum(square, 1e-24))).astype(x.dtype)
