"""The linear map and the layer norm of all models and encoders, with axis names for sharding.

Axis names: "channels" raw features, "embed" widths of the residual stream, "heads" and "head_dim"
of attention, "mlp" hidden widths, "norm" the vectors of norms, None what is never split.
`maven_jax.runtime.sharding` lays them on the mesh. Layers ("embed", "mlp") and ("mlp", "embed") in
a row need one all-reduce between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

XAVIER = nn.initializers.xavier_uniform()


def contract(
    x: Float[Array, "..."], kernel: Float[Array, "..."], num_in: int = 1
) -> Float[Array, "..."]:
    """Sums x · kernel over x's last `num_in` axes, which are the kernel's first ones."""
    # As one matrix: contracted over several axes, the kernel is copied transposed for gradients.
    rows = x.reshape(*x.shape[: x.ndim - num_in], -1)
    y = rows @ kernel.reshape(rows.shape[-1], -1)
    return y.reshape(*rows.shape[:-1], *kernel.shape[num_in:])


class Linear(nn.Module):
    """A linear map over the last axis, or over several.

    nn.DenseGeneral initialises a flattened kernel, which axis names of the unflattened one do not
    fit.

    Attributes:
        features: width of the output, or its axes.
        axes: logical names of the kernel's axes, inputs then outputs.
        use_bias: adds a bias.
        kernel_init: start of the kernel; None: normal, scaled by the fan-in.
        bias_init: start of the bias.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    features: int | Sequence[int]
    axes: Sequence[str | None]
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer | None = None
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        features = (self.features,) if isinstance(self.features, int) else tuple(self.features)
        axes = tuple(self.axes)
        num_in = len(axes) - len(features)
        kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(self.kernel_init or _by_fan_in(num_in, len(axes)), axes),
            (*x.shape[x.ndim - num_in :], *features),
            self.param_dtype,
        )
        y = contract(x.astype(self.dtype), jnp.asarray(kernel, self.dtype), num_in)
        if self.use_bias:
            init = nn.with_logical_partitioning(self.bias_init, axes[num_in:])
            bias = self.param("bias", init, features, self.param_dtype)
            y = y + jnp.asarray(bias, self.dtype)
        return y


def _by_fan_in(num_in: int, num_axes: int) -> nn.initializers.Initializer:
    axes = range(num_axes)
    return nn.initializers.lecun_normal(axes[:num_in], axes[num_in:])


def dense(
    features: int,
    axes: tuple[str | None, str | None],
    *,
    name: str,
    dtype: DTypeLike,
    param_dtype: DTypeLike,
    kernel_init: nn.initializers.Initializer = XAVIER,
    **options: Any,
) -> Linear:
    """Returns a `Linear` as models use it: with Xavier's start unless another is passed."""
    return Linear(
        features,
        axes,
        kernel_init=kernel_init,
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
        **options,
    )


def uniform_by_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Returns U(-1/√fan_in, 1/√fan_in), torch's own start of linear layers, convolutions, LSTMs."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, **kwargs: Any):
        limit = fan_in**-0.5
        return jax.random.uniform(key, tuple(shape), dtype, -limit, limit)

    return init


class LayerNorm(nn.Module):
    """Layer normalisation, computed in float32.

    Attributes:
        epsilon: added to the variance.
        dtype: of the output.
        param_dtype: of the parameters.
        axes: logical names of the normalised axes, which are the last ones.
        use_bias: adds a bias.
    """

    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    axes: Sequence[str | None] = ("norm",)
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        axes = tuple(self.axes)
        shape = x.shape[x.ndim - len(axes) :]
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), axes)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes)
        scale = jnp.asarray(self.param("scale", ones, shape, self.param_dtype))
        bias = jnp.zeros(shape, self.param_dtype)
        if self.use_bias:
            bias = jnp.asarray(self.param("bias", zeros, shape, self.param_dtype))
        return _normalized(x, scale, bias, self.epsilon, self.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalized(x: Array, scale: Array, bias: Array, epsilon: float, dtype: DTypeLike) -> Array:
    return _normalized_forward(x, scale, bias, epsilon, dtype)[0]


def _normalized_forward(x: Array, scale: Array, bias: Array, epsilon: float, dtype: DTypeLike):
    last = tuple(range(-scale.ndim, 0))
    wide = x.astype(jnp.float32)
    mean = wide.mean(last, keepdims=True)
    # By two passes: E[x²] − E[x]² loses what an epsilon of 1e-12 keeps.
    centered = wide - mean
    factor = jax.lax.rsqrt(jnp.square(centered).mean(last, keepdims=True) + epsilon)
    y = (centered * factor * scale + bias).astype(dtype)
    # Without it XLA computes both again from x wherever the gradient needs them.
    mean, factor = jax.lax.optimization_barrier((mean, factor))
    return y, (x, mean, factor, scale, bias)


def _normalized_backward(epsilon: float, dtype: DTypeLike, saved: Any, gradient: Array):
    """JAX's own keeps float32 copies of x, and reads them once for each sum."""
    x, mean, factor, scale, bias = saved
    last, rows = tuple(range(-scale.ndim, 0)), tuple(range(x.ndim - scale.ndim))
    gradient = gradient.astype(jnp.float32)
    normal = (x.astype(jnp.float32) - mean) * factor
    scaled = gradient * scale
    of_x = scaled - scaled.mean(last, keepdims=True)
    of_x -= normal * (scaled * normal).mean(last, keepdims=True)
    return (
        (of_x * factor).astype(x.dtype),
        (gradient * normal).sum(rows).astype(scale.dtype),
        gradient.sum(rows).astype(bias.dtype),
    )


_normalized.defvjp(_normalized_forward, _normalized_backward)
