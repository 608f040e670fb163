"""The linear and norm layers all models share: torch's defaults, logical axis names for sharding.

Axis names: "channels" raw features, "embed" widths of the residual stream, "heads" and "head_dim"
of attention, "mlp" hidden widths, "norm" the vectors of norms, None what is never split.
`maven_jax.runtime.sharding` lays them on the mesh. Layers ("embed", "mlp") and ("mlp", "embed") in
a row need one all-reduce between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

XAVIER = nn.initializers.xavier_uniform()


def dense(
    features: int,
    axes: tuple[str | None, str | None],
    *,
    name: str,
    dtype: DTypeLike,
    param_dtype: DTypeLike,
    kernel_init: nn.initializers.Initializer = XAVIER,
    bias_init: nn.initializers.Initializer = nn.initializers.zeros,
    dot_general: Callable[..., Array] | None = None,
) -> nn.Dense:
    """Returns a linear layer whose kernel carries the logical axis names `axes`."""
    return nn.Dense(
        features,
        kernel_init=nn.with_logical_partitioning(kernel_init, axes),
        bias_init=nn.with_logical_partitioning(bias_init, (axes[1],)),
        dtype=dtype,
        param_dtype=param_dtype,
        dot_general=dot_general,
        name=name,
    )


def uniform_by_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """Returns U(-1/√fan_in, 1/√fan_in), torch's own start of linear layers, convolutions, LSTMs."""

    def init(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32, **kwargs: Any):
        limit = fan_in**-0.5
        return jax.random.uniform(key, tuple(shape), dtype, -limit, limit)

    return init


def layer_norm(*, name: str, param_dtype: DTypeLike, epsilon: float = 1e-5) -> nn.LayerNorm:
    """Returns a LayerNorm over the last axis that computes and returns float32."""
    return nn.LayerNorm(
        epsilon=epsilon,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), ("norm",)),
        dtype=jnp.float32,
        param_dtype=param_dtype,
        name=name,
    )
