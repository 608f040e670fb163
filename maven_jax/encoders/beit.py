"""BEiT's transformer layers, over frames of a sequence instead of patches of an image.

Source: Bao et al., "BEiT: BERT Pre-Training of Image Transformers" (ICLR 2022); MAVEN (CVPRW
2025) refines fused frames by two such stacks. BEiT's 2-D relative position bias means nothing
over frames; a learned 1-D one can take its place.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.layer_scan import keeping_products, layers_written_out
from maven_jax.layers.attention import SelfAttention
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.linear import LayerNorm
from maven_jax.layers.transformer import FeedForward

# The published model's initializer_range.
_KERNEL_INIT = nn.initializers.truncated_normal(0.02)


class RelativePositionBias(nn.Module):
    """A learned bias per head and distance in frames; zero at first.

    Attributes:
        num_heads: heads.
        max_distance: frames further apart than this share the bias of this distance.
    """

    num_heads: int
    max_distance: int

    @nn.compact
    def __call__(self, num_frames: int) -> Float[Array, "h {num_frames} {num_frames}"]:
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("position", "heads"))
        table = self.param("table", init, (2 * self.max_distance + 1, self.num_heads))
        frames = jnp.arange(num_frames)
        distance = jnp.clip(
            frames[None, :] - frames[:, None], -self.max_distance, self.max_distance
        )
        return jnp.asarray(table)[distance + self.max_distance].transpose(2, 0, 1)  # (h, t, t)


class BeitLayer(nn.Module):
    """One pre-norm layer with layer scale; the key projection has no bias.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward part.
        layer_scale_init: initial value of the two per-channel scales; 0 leaves them out.
        relative_position: None, or "1d" for a learned bias over distances in frames.
        max_distance: of that bias, in frames.
        dropout_rate: behind attention and feed-forward.
        attention_dropout_rate: of the attention weights.
        activation: Hugging Face's name of it.
        norm_eps: of both norms.
        valid_first: the frames that the mask leaves out lie behind all others.
        deterministic: no dropout, no stochastic depth; otherwise an rng "dropout" is needed.
        dtype: of the computation.
    """

    num_heads: int
    mlp_dim: int
    layer_scale_init: float = 0.1
    relative_position: Literal["1d"] | None = None
    max_distance: int = 128
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    activation: str = "gelu"
    norm_eps: float = 1e-12
    valid_first: bool = False
    deterministic: bool = True
    dtype: DTypeLike = jnp.float32

    def _branch(self, y: Array, name: str, drop_path_rate: Array | None) -> Array:
        """What is added to the residual: dropout, layer scale, stochastic depth per window."""
        y = Dropout(self.dropout_rate, self.deterministic)(y)
        if self.layer_scale_init > 0:
            init = nn.with_logical_partitioning(
                nn.initializers.constant(self.layer_scale_init), ("norm",)
            )
            y = y * jnp.asarray(self.param(name, init, y.shape[-1:]), y.dtype)
        if drop_path_rate is not None and not self.deterministic:
            keep = 1.0 - drop_path_rate
            mask = jax.random.bernoulli(self.make_rng("dropout"), keep, (y.shape[0], 1, 1))
            # A factor for each window: of a choice between arrays the gradient keeps a whole one.
            y = y * jnp.where(mask, 1 / keep, 0).astype(y.dtype)
        return y

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"] | None = None,
        drop_path_rate: Float[Array, ""] | None = None,
    ) -> Float[Array, "b t d"]:
        """The layer's output.

        Args:
            x: frames.
            mask: False for frames that no other attends to.
            drop_path_rate: probability of leaving out a branch for a whole window.
        """
        bias = None
        if self.relative_position == "1d":
            bias = RelativePositionBias(
                self.num_heads, self.max_distance, name="relative_position_bias"
            )(x.shape[1])
        elif self.relative_position is not None:
            raise ValueError(f"relative_position {self.relative_position!r} is not None or '1d'")
        y = LayerNorm(self.norm_eps, self.dtype, name="attention_norm")(x)
        y = SelfAttention(
            self.num_heads,
            key_bias=False,
            kernel_init=_KERNEL_INIT,
            dropout_rate=self.attention_dropout_rate,
            dtype=self.dtype,
            name="attention",
        )(y, mask, bias, valid_first=self.valid_first, deterministic=self.deterministic)
        x = x + self._branch(y, "attention_scale", drop_path_rate)
        y = LayerNorm(self.norm_eps, self.dtype, name="mlp_norm")(x)
        y = FeedForward(self.mlp_dim, self.activation, _KERNEL_INIT, self.dtype, name="mlp")(y)
        return x + self._branch(y, "mlp_scale", drop_path_rate)


class _ScannedLayer(BeitLayer):
    """`BeitLayer` with the (carry, output) result that a scan needs."""

    def __call__(self, x, mask, drop_path_rate):
        return super().__call__(x, mask, drop_path_rate), None


class BeitStack(nn.Module):
    """`BeitLayer`s in a row, as one scan over stacked parameters; no norm behind the last.

    Frames that `mask` leaves out influence no other frame, whatever they hold (NaN included),
    and come out as zeros.

    Attributes:
        num_layers: layers.
        num_heads: see `BeitLayer`; likewise all that are not named here.
        mlp_dim: see `BeitLayer`.
        layer_scale_init: see `BeitLayer`.
        relative_position: see `BeitLayer`.
        max_distance: see `BeitLayer`.
        dropout_rate: see `BeitLayer`.
        attention_dropout_rate: see `BeitLayer`.
        stochastic_depth_rate: probability of leaving out a branch in the last layer; it rises
            linearly from 0 in the first.
        remat: recompute activations in the backward pass instead of keeping them.
        activation: see `BeitLayer`.
        norm_eps: see `BeitLayer`.
        valid_first: see `BeitLayer`.
        dtype: of the computation.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    layer_scale_init: float = 0.1
    relative_position: Literal["1d"] | None = None
    max_distance: int = 128
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    stochastic_depth_rate: float = 0.0
    remat: bool = False
    activation: str = "gelu"
    norm_eps: float = 1e-12
    valid_first: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        mask: Bool[Array, "b t"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "b t d"]:
        x = nn.with_logical_constraint(
            x.astype(self.dtype), ("batch", "frames", "activation_embed")
        )
        if mask is not None:
            # A weight of zero does not silence a NaN; replacing the frame does.
            x = jnp.where(mask[..., None], x, 0)
        rates = None
        if self.stochastic_depth_rate and not deterministic:
            rates = jnp.linspace(0.0, self.stochastic_depth_rate, self.num_layers)
        if self.remat:
            layer = nn.remat(_ScannedLayer, prevent_cse=False)
        else:
            layer = keeping_products(_ScannedLayer)
        layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            # Linen's annotation knows integers only.
            in_axes=(nn.broadcast, nn.broadcast if rates is None else 0),  # pyright: ignore
            length=self.num_layers,
            unroll=layers_written_out(self.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(
            self.num_heads,
            self.mlp_dim,
            layer_scale_init=self.layer_scale_init,
            relative_position=self.relative_position,
            max_distance=self.max_distance,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            activation=self.activation,
            norm_eps=self.norm_eps,
            valid_first=self.valid_first,
            deterministic=deterministic,
            dtype=self.dtype,
            name="layers",
        )
        x, _ = layers(x, mask, rates)
        return x if mask is None else jnp.where(mask[..., None], x, 0)
