"""Selective state spaces (Mamba; Gu & Dao, 2023) over the frames of a window, both ways."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import LayerNorm, dense

# As published: states of each channel, and how much wider the channels are than the frames.
STATE_DIM = 16
EXPANSION = 2
# Steps of time at the start, from the smallest to the largest.
_STEPS = (1e-3, 1e-1)


def selective_scan(
    x: Float[Array, "b t c"],
    step: Float[Array, "b t c"],
    decay: Float[Array, "c n"],
    into: Float[Array, "b t n"],
    out_of: Float[Array, "b t n"],
) -> Float[Array, "b t c"]:
    """Returns y_t = C_t h_t with h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t, h before the first 0.

    The recurrence is linear in h: an associative scan takes log2(t) turns for its t steps. Float32.

    Args:
        x: channels of each frame.
        step: Δ; where it is 0 a frame leaves the state as it is.
        decay: A, negative, of each channel's n states.
        into: B.
        out_of: C.
    """
    factor = jnp.exp(step[..., None] * decay)  # (b, t, c, n)
    added = (step * x)[..., None] * into[..., None, :]

    def after(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        return first[0] * second[0], first[1] * second[0] + second[1]

    _, states = jax.lax.associative_scan(after, (factor, added), axis=1)
    return jnp.sum(states * out_of[..., None, :], axis=-1)


def _decay_start(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """log(1 … n) for every channel."""
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)


def _step_start(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Biases whose softplus lies between `_STEPS`, evenly by its logarithm."""
    low, high = map(math.log, _STEPS)
    step = jnp.exp(jax.random.uniform(key, shape, dtype) * (high - low) + low)
    return step + jnp.log(-jnp.expm1(-step))


class SelectiveStateSpace(nn.Module):
    """A Mamba block without its residual: each frame sees those before it.

    x, z = W_in u; x = silu(conv(x)); Δ = softplus(W_Δ x + b), B = W_B x, C = W_C x; y is
    `selective_scan` plus D x; the result is W_out (y · silu(z)).

    Attributes:
        kernel_size: taps of the convolution along each channel.
        dtype: of the matrix products; the scan is float32.
        param_dtype: of the parameters.
    """

    kernel_size: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, u: Float[Array, "b t d"], mask: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """Returns the frames' outputs; frames outside `mask` change no state."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = u.shape[-1]
        channels = EXPANSION * width
        keep = mask[..., None]
        x = dense(channels, ("embed", "mlp"), name="in", use_bias=False, **dtypes)(u)
        z = dense(channels, ("embed", "mlp"), name="gate", use_bias=False, **dtypes)(u)
        x = nn.silu(self._conv(jnp.where(keep, x, 0)))
        into = dense(STATE_DIM, ("mlp", None), name="into_state", use_bias=False, **dtypes)(x)
        out_of = dense(STATE_DIM, ("mlp", None), name="out_of_state", use_bias=False, **dtypes)(x)
        rank = -(-width // 16)
        step = dense(rank, ("mlp", None), name="step_low", use_bias=False, **dtypes)(x)
        step = dense(channels, (None, "mlp"), name="step", bias_init=_step_start, **dtypes)(step)
        step = jnp.where(keep, nn.softplus(step.astype(jnp.float32)), 0)
        decay: Any = self.param(
            "decay_log",
            nn.with_logical_partitioning(_decay_start, ("mlp", None)),
            (channels, STATE_DIM),
            self.param_dtype,
        )
        skip: Any = self.param(
            "skip",
            nn.with_logical_partitioning(nn.initializers.ones, ("mlp",)),
            (channels,),
            self.param_dtype,
        )
        wide = x.astype(jnp.float32)
        decay = -jnp.exp(decay.astype(jnp.float32))
        y = selective_scan(wide, step, decay, into.astype(jnp.float32), out_of.astype(jnp.float32))
        y = (y + skip * wide).astype(self.dtype) * nn.silu(z)
        return dense(width, ("mlp", "embed"), name="out", use_bias=False, **dtypes)(y)

    def _conv(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """A causal convolution of each channel by itself."""
        channels = x.shape[-1]
        start = nn.initializers.uniform(2 * self.kernel_size**-0.5)

        def centred(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
            return start(key, shape, dtype) - self.kernel_size**-0.5

        taps: Any = self.param(
            "conv_kernel",
            nn.with_logical_partitioning(centred, (None, "mlp")),
            (self.kernel_size, channels),
            self.param_dtype,
        )
        bias: Any = self.param(
            "conv_bias",
            nn.with_logical_partitioning(nn.initializers.zeros, ("mlp",)),
            (channels,),
            self.param_dtype,
        )
        padded = jnp.pad(x, ((0, 0), (self.kernel_size - 1, 0), (0, 0)))
        taps = taps.astype(self.dtype)
        y = sum(padded[:, i : i + x.shape[1]] * taps[i] for i in range(self.kernel_size))
        return y + bias.astype(self.dtype)


class MambaStack(nn.Module):
    """Layers x ← x + dropout(forward(norm(x)) + backward(norm(x))), and a norm.

    The backward block reads the window from its end, with weights of its own: predictions here are
    not made while a video runs. The layers are one scan.

    Attributes:
        num_layers: layers.
        kernel_size: see SelectiveStateSpace.
        dropout_rate: on what a layer adds.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    num_layers: int
    kernel_size: int
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Returns a representation of each frame; frames outside `mask` count for nothing."""
        layers = nn.scan(
            _MambaLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            # Linen's annotation knows integers only.
            in_axes=nn.broadcast,  # pyright: ignore
            length=self.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(self.kernel_size, self.dropout_rate, deterministic, self.dtype, self.param_dtype)
        x, _ = layers(jnp.where(mask[..., None], x, 0).astype(self.dtype), mask)
        return LayerNorm(dtype=self.dtype, param_dtype=self.param_dtype, name="norm")(x)


class _MambaLayer(nn.Module):
    kernel_size: int
    dropout_rate: float | int
    deterministic: bool
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"]):
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = LayerNorm(name="norm", **dtypes)(x)
        forward = SelectiveStateSpace(self.kernel_size, name="forward", **dtypes)(y, mask)
        backward = SelectiveStateSpace(self.kernel_size, name="backward", **dtypes)(
            y[:, ::-1], mask[:, ::-1]
        )
        added = Dropout(self.dropout_rate, self.deterministic)(forward + backward[:, ::-1])
        return x + added, None
