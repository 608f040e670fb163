"""The layers of transformers: feed-forward part, encoder layer, a stack of them as one scan."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.activations import activation
from maven_jax.layers.attention import SelfAttention
from maven_jax.layers.linear import LayerNorm, Linear


class FeedForward(nn.Module):
    """Linear, activation, linear.

    Attributes:
        mlp_dim: inner width.
        activation: Hugging Face's name of it.
        kernel_init: see `Linear`.
        dtype: of the computation.
    """

    mlp_dim: int
    activation: str = "gelu"
    kernel_init: nn.initializers.Initializer | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        linear = partial(Linear, kernel_init=self.kernel_init, dtype=self.dtype)
        y = activation(self.activation)(linear(self.mlp_dim, ("embed", "mlp"), name="up")(x))
        return linear(x.shape[-1], ("mlp", "embed"), name="down")(y)


class PositionGate(nn.Module):
    """How much of a relative position bias a frame takes (WavLM, Chen et al., 2022, section 3.2).

    Attributes:
        num_heads: attention heads.
        dtype: of the computation.
    """

    num_heads: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b h t 1"]:
        heads = x.reshape(*x.shape[:2], self.num_heads, -1)
        y = Linear(8, ("head_dim", None), dtype=self.dtype, name="projection")(heads)
        y = y.astype(jnp.float32).reshape(*y.shape[:-1], 2, 4).sum(-1)
        update, reset = jnp.moveaxis(jax.nn.sigmoid(y), -1, 0)  # (b, t, h) each
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("heads",))
        scale = jnp.asarray(self.param("reset_scale", ones, (self.num_heads,)))
        return (update * (reset * scale - 1) + 2).swapaxes(1, 2)[..., None]


class EncoderLayer(nn.Module):
    """One layer of a frozen encoder: BERT's order (norm after adding) or the pre-norm one.

    What its mask leaves out is padding behind the tokens or frames.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward part.
        activation: Hugging Face's name of it.
        norm_eps: of both norms.
        pre_norm: normalise before each part instead of after adding it.
        dtype: of the computation.
        emit: hand the output to a scan's stack too.
        gated_bias: scale the position bias by a `PositionGate` of this layer's own.
        layer_scale: a learned factor for each channel of what the two parts add.
        key_bias: whether the key projection has a bias.
    """

    num_heads: int
    mlp_dim: int
    activation: str
    norm_eps: float
    pre_norm: bool = False
    dtype: DTypeLike = jnp.float32
    emit: bool = False
    gated_bias: bool = False
    layer_scale: bool = False
    key_bias: bool = True

    def _scaled(self, y: Array, name: str) -> Array:
        if not self.layer_scale:
            return y
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        return y * jnp.asarray(self.param(name, ones, y.shape[-1:]), y.dtype)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"] | None,
        position_bias: Float[Array, "h t t"] | None = None,
    ):
        norm = partial(LayerNorm, self.norm_eps, self.dtype)
        attention = SelfAttention(self.num_heads, self.key_bias, dtype=self.dtype, name="attention")
        feed_forward = FeedForward(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")
        attention_norm, mlp_norm = norm(name="attention_norm"), norm(name="mlp_norm")
        bias = position_bias
        if self.gated_bias and position_bias is not None:
            y = attention_norm(x) if self.pre_norm else x
            bias = PositionGate(self.num_heads, self.dtype, name="gate")(y) * position_bias
        if self.pre_norm:
            y = attention(attention_norm(x), mask, bias, valid_first=True)
            x = x + self._scaled(y, "attention_scale")
            x = x + self._scaled(feed_forward(mlp_norm(x)), "mlp_scale")
        else:
            x = attention_norm(x + attention(x, mask, bias, valid_first=True))
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
    gated_bias: bool = False
    layer_scale: bool = False
    key_bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"] | None = None,
        position_bias: Float[Array, "h t t"] | None = None,
        *,
        every_layer: bool = False,
    ) -> Float[Array, "*layers b t d"]:
        """The last layer's output, or with `every_layer` all of them on a leading axis.

        Args:
            x: tokens or frames.
            mask: False for padding.
            position_bias: added to the scores of every layer.
            every_layer: see above.
        """
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
            self.gated_bias,
            self.layer_scale,
            self.key_bias,
            name="layers",
        )(x.astype(self.dtype), mask, position_bias)
        return last if every is None else every
