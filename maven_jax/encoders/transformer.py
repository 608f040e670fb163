"""The parts that transformer encoders share: linear maps, attention, feed-forward, layer stacks.

Kernels keep heads apart, (embed, heads, head_dim), and carry logical axis names, so that a mesh
can split heads and the feed-forward's width; without a mesh the names do nothing. Norms and
softmax are float32 whatever the compute dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.errors import UserError


def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """GELU by erf, in float32; jax.nn's exact one by erfc costs a fifth more on processors."""
    wide = x.astype(jnp.float32)
    return (wide * 0.5 * (1 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


# Hugging Face's names of activations. Its "gelu" is the exact one, jax.nn's default is not.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_python": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The activation that a Hugging Face config calls `name`.

    Raises:
        UserError: it is none of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"activation {name!r} is not known; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def kernel_initializer(
    stddev: float | None, num_in: int, num_out: int
) -> nn.initializers.Initializer:
    """Normal with `stddev`, or, if that is None, scaled by the fan-in of the first num_in axes."""
    if stddev is not None:
        return nn.initializers.truncated_normal(stddev)
    axes = range(num_in + num_out)
    return nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", axes[:num_in], axes[num_in:]
    )


class Linear(nn.Module):
    """A linear map over the last axes, with logical axis names on kernel and bias.

    nn.DenseGeneral initialises a flattened kernel, which does not fit partitioning names of the
    unflattened one; this does without.

    Attributes:
        features: output axes.
        axes: logical names of the kernel's axes, inputs then outputs.
        stddev: of the kernel's initial values; None scales by fan-in.
        use_bias: adds a bias, zero at first.
        dtype: of the computation.
    """

    features: Sequence[int]
    axes: Sequence[str | None]
    stddev: float | None = None
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        features, axes = tuple(self.features), tuple(self.axes)
        num_in = len(axes) - len(features)
        shape = (*x.shape[x.ndim - num_in :], *features)
        init = kernel_initializer(self.stddev, num_in, len(features))
        kernel = self.param("kernel", nn.with_logical_partitioning(init, axes), shape)
        # As one matrix: contracted over two axes, the kernel is copied transposed for gradients.
        rows = x.astype(self.dtype).reshape(*x.shape[: x.ndim - num_in], -1)
        matrix = jnp.asarray(kernel, self.dtype).reshape(rows.shape[-1], -1)
        y = (rows @ matrix).reshape(*rows.shape[:-1], *features)
        if self.use_bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros_init(), axes[num_in:])
            y = y + jnp.asarray(self.param("bias", init, features), self.dtype)
        return y


class LayerNorm(nn.Module):
    """Layer normalisation in float32, by two passes: E[x²] − E[x]² loses what eps 1e-12 keeps.

    Attributes:
        epsilon: added to the variance.
        dtype: of the output.
    """

    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("norm",))
        scale = jnp.asarray(self.param("scale", ones, x.shape[-1:]))
        bias = jnp.asarray(self.param("bias", zeros, x.shape[-1:]))
        x = x.astype(jnp.float32)
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        return (x * scale + bias).astype(self.dtype)


def attend(
    query: Float[Array, "b t h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    key_mask: Bool[Array, "b s"] | None = None,
    bias: Float[Array, "*#bh t s"] | None = None,
    dropout: Callable[[Array], Array] | None = None,
) -> Float[Array, "b t h k"]:
    """Scaled dot-product attention; softmax in float32.

    Args:
        query: queries.
        key: keys.
        value: values.
        key_mask: False for keys that nobody attends to; where none is left the result is zero.
        bias: added to the scores, broadcast over batch and heads.
        dropout: applied to the weights.
    """
    # Heads lead, so that both products are plain batched ones, and the division waits until the
    # keys are summed: in Swin's windows a third of the time of the other order, on processors.
    query, key, value = (
        checkpoint_name(x.swapaxes(1, 2), "attention_inputs") for x in (query, key, value)
    )  # (b, h, t, k)
    query = query * (1 / math.sqrt(query.shape[-1]))
    scores = jnp.einsum("bhtk,bhsk->bhts", query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias
    if key_mask is not None:
        seen = key_mask[:, None, None, :]
        # The smallest finite number, not -inf: a row without keys must not become NaN.
        scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    if key_mask is not None:
        weights = jnp.where(seen, weights, 0.0)
    if dropout is not None:
        weights = dropout(weights)
    weights = weights.astype(value.dtype)
    y = jnp.einsum("bhts,bhsk->bhtk", weights, value, preferred_element_type=jnp.float32)
    return checkpoint_name((y / total).astype(value.dtype).swapaxes(1, 2), "attended")


class SelfAttention(nn.Module):
    """Multi-head self-attention.

    Attributes:
        num_heads: heads; must divide the width of the input.
        query_bias: whether the query projection has a bias; likewise key, value.
        key_bias: see `query_bias`.
        value_bias: see `query_bias`.
        stddev: of initial kernels; None scales by fan-in.
        dropout_rate: of the attention weights.
        dtype: of the computation.
    """

    num_heads: int
    query_bias: bool = True
    key_bias: bool = True
    value_bias: bool = True
    stddev: float | None = None
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        key_mask: Bool[Array, "b t"] | None = None,
        bias: Float[Array, "*#bh t t"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "b t d"]:
        width = x.shape[-1]
        if width % self.num_heads:
            raise UserError(f"num_heads {self.num_heads} does not divide the width {width}")
        linear = partial(Linear, stddev=self.stddev, dtype=self.dtype)
        heads = partial(
            linear, (self.num_heads, width // self.num_heads), ("embed", "heads", "head_dim")
        )
        query = heads(use_bias=self.query_bias, name="query")(x)  # (b, t, h, k)
        key = heads(use_bias=self.key_bias, name="key")(x)
        value = heads(use_bias=self.value_bias, name="value")(x)
        drop = None
        if self.dropout_rate and not deterministic:
            drop = nn.Dropout(self.dropout_rate, deterministic=False)
        y = attend(query, key, value, key_mask, bias, drop)
        return linear((width,), ("heads", "head_dim", "embed"), name="out")(y)


class FeedForward(nn.Module):
    """Linear, activation, linear.

    Attributes:
        mlp_dim: inner width.
        activation: Hugging Face's name of it.
        stddev: of initial kernels; None scales by fan-in.
        dtype: of the computation.
    """

    mlp_dim: int
    activation: str = "gelu"
    stddev: float | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        linear = partial(Linear, stddev=self.stddev, dtype=self.dtype)
        y = checkpoint_name(linear((self.mlp_dim,), ("embed", "mlp"), name="up")(x), "mlp_hidden")
        y = activation(self.activation)(y)
        return linear((x.shape[-1],), ("mlp", "embed"), name="down")(y)


class EncoderLayer(nn.Module):
    """One layer of a frozen encoder: BERT's order (norm after adding) or the pre-norm one.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward part.
        activation: Hugging Face's name of it.
        norm_eps: of both norms.
        pre_norm: normalise before each part instead of after adding it.
        dtype: of the computation.
        emit: hand the output to a scan's stack too.
    """

    num_heads: int
    mlp_dim: int
    activation: str
    norm_eps: float
    pre_norm: bool = False
    dtype: DTypeLike = jnp.float32
    emit: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"] | None):
        norm = partial(LayerNorm, self.norm_eps, self.dtype)
        attention = SelfAttention(self.num_heads, dtype=self.dtype, name="attention")
        feed_forward = FeedForward(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")
        attention_norm, mlp_norm = norm(name="attention_norm"), norm(name="mlp_norm")
        if self.pre_norm:
            x = x + attention(attention_norm(x), mask)
            x = x + feed_forward(mlp_norm(x))
        else:
            x = attention_norm(x + attention(x, mask))
            x = mlp_norm(x + feed_forward(x))
        return x, x if self.emit else None


class EncoderStack(nn.Module):
    """`EncoderLayer`s in a row, as one scan: they compile once, their parameters are stacked.

    Attributes:
        num_layers: layers; all other attributes are those of `EncoderLayer`.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    activation: str
    norm_eps: float
    pre_norm: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"] | None = None,
        *,
        every_layer: bool = False,
    ) -> Float[Array, "*layers b t d"]:
        """The last layer's output, or with `every_layer` all of them on a leading axis."""
        layers = nn.scan(
            EncoderLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            # Linen's annotation knows integers only.
            in_axes=nn.broadcast,  # pyright: ignore
            length=self.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        last, every = layers(
            self.num_heads,
            self.mlp_dim,
            self.activation,
            self.norm_eps,
            self.pre_norm,
            self.dtype,
            every_layer,
            name="layers",
        )(x.astype(self.dtype), mask)
        return last if every is None else every
