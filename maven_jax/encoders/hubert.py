"""HuBERT (Hsu et al., 2021): 16 kHz waveforms to one vector per 20 ms.

wav2vec 2.0 (Baevski et al., 2020) is the same network, and WavLM (Chen et al., 2022) differs by a
relative position bias, gated in every layer.

Long recordings go through in chunks that overlap. The base model's first norm needs statistics of
the whole recording, which are passed with every chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.encoders import hf_config
from maven_jax.errors import UserError
from maven_jax.layers.activations import activation
from maven_jax.layers.linear import LayerNorm, Linear
from maven_jax.layers.relative_position import position_bias
from maven_jax.layers.transformer import EncoderStack

# PyTorch's default, which the norms of the convolutions keep whatever the config says.
_CONV_NORM_EPS = 1e-5
_WAVE = ("NWC", "WIO", "NWC")
# Logical axis names of the convolutions' kernels.
_KERNEL = (None, "channels", "embed")


@dataclass(frozen=True)
class HubertConfig:
    """Sizes under Hugging Face's names and with its defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    feat_proj_layer_norm: bool = True
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    conv_pos_batch_norm: bool = False
    do_stable_layer_norm: bool = False
    # Of WavLM's position bias, which the others have not.
    num_buckets: int = 0
    max_bucket_distance: int = 800

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> HubertConfig:
        """Reads a Hugging Face config.

        Raises:
            UserError: a size is impossible, or the config asks for what is not implemented.
        """
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "num_attention_heads", "hidden_size")
        hf_config.check_divides(self, "num_conv_pos_embedding_groups", "hidden_size")
        activation(self.hidden_act)
        activation(self.feat_extract_activation)
        if self.feat_extract_norm not in ("group", "layer"):
            raise UserError(
                f"config.json: feat_extract_norm {self.feat_extract_norm!r} is not group or layer"
            )
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel):
            raise UserError("config.json: conv_dim, conv_stride and conv_kernel differ in length")
        if min(self.conv_dim + self.conv_stride + self.conv_kernel) < 1:
            raise UserError("config.json: conv_dim, conv_stride and conv_kernel must be positive")
        for key in ("adapter_attn_dim", "add_adapter"):
            if config.get(key):
                raise UserError(f"config.json: {key} is set; adapters are not supported")
        if self.num_buckets and not 4 <= self.num_buckets < 4 * self.max_bucket_distance:
            raise UserError(
                f"config.json: num_buckets {self.num_buckets} and max_bucket_distance "
                f"{self.max_bucket_distance} make no position bias"
            )
        return self

    @property
    def hop_samples(self) -> int:
        """Samples between the centres of successive frames."""
        return int(np.prod(self.conv_stride))

    @property
    def receptive_field_samples(self) -> int:
        """Samples that the convolutions see for one frame."""
        field, hop = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            field, hop = field + (kernel - 1) * hop, hop * stride
        return field

    @property
    def has_first_norm_statistics(self) -> bool:
        """Whether the first norm runs over the whole recording."""
        return self.feat_extract_norm == "group"

    def num_frames(self, num_samples: int) -> int:
        """Frames that the convolutions make of that many samples."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = max((num_samples - kernel) // stride + 1, 0)
        return num_samples

    def frame_mask(self, sample_mask: Bool[Array, "b samples"]) -> Bool[Array, "b frames"]:
        """True for frames that see nothing but samples under the mask."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            sample_mask = _conv_mask(sample_mask, kernel, stride)
        return sample_mask

    def frame_times_s(self, num_frames: int, sample_rate_hz: float = 16000.0) -> np.ndarray:
        """Centres of the frames' receptive fields, (num_frames,) seconds from the first sample."""
        first = (self.receptive_field_samples - 1) / 2
        return (first + np.arange(num_frames) * self.hop_samples) / sample_rate_hz


@dataclass(frozen=True)
class WavlmConfig(HubertConfig):
    """Sizes under Hugging Face's names and with its defaults."""

    num_buckets: int = 320


def _conv_mask(mask: Bool[Array, "b n"], kernel: int, stride: int) -> Bool[Array, "b m"]:
    """True for outputs of a convolution all of whose inputs are True."""
    last = mask.shape[1] - kernel + 1
    return reduce(jnp.logical_and, (mask[:, i : last + i : stride] for i in range(kernel)))


class Conv(nn.Module):
    """A 1-D convolution without padding, behind it the bias.

    Attributes:
        features: output channels.
        kernel_size: taps.
        stride: between outputs, in inputs.
        use_bias: adds a bias.
        dtype: of the computation.
    """

    features: int
    kernel_size: int
    stride: int
    use_bias: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b m d"]:
        shape = (self.kernel_size, x.shape[-1], self.features)
        start = nn.with_logical_partitioning(nn.initializers.he_normal(), _KERNEL)
        kernel = self.param("kernel", start, shape)
        kernel = jnp.asarray(kernel, self.dtype)
        y = lax.conv_general_dilated(
            x.astype(self.dtype), kernel, (self.stride,), "VALID", dimension_numbers=_WAVE
        )
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), _KERNEL[-1:])
            bias = self.param("bias", zeros, (self.features,))
            y = y + jnp.asarray(bias, self.dtype)
        return y


class ChannelNorm(nn.Module):
    """Normalises every channel by the mean and variance that it is given (float32).

    Attributes:
        dtype: of the output.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], mean: Float[Array, "b c"], variance: Float[Array, "b c"]
    ) -> Float[Array, "b n c"]:
        ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("norm",))
        scale = jnp.asarray(self.param("scale", ones, x.shape[-1:]))
        bias = jnp.asarray(self.param("bias", zeros, x.shape[-1:]))
        factor = lax.rsqrt(variance + _CONV_NORM_EPS) * scale
        shift = bias - mean * factor
        y = x.astype(jnp.float32) * factor[:, None] + shift[:, None]
        return y.astype(self.dtype)


class PositionalConv(nn.Module):
    """Relative positions by a wide grouped convolution; output as long as the input.

    Attributes:
        kernel_size: taps.
        groups: of channels.
        activation: Hugging Face's name of it.
        batch_norm: normalise before (folded into a scale and a shift per channel) instead of
            the usual weight norm (folded into the kernel).
        dtype: of the computation.
    """

    kernel_size: int
    groups: int
    activation: str
    batch_norm: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], mask: Bool[Array, "b t"] | None
    ) -> Float[Array, "b t d"]:
        d = x.shape[-1]
        if self.batch_norm:
            ones = nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",))
            zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), ("norm",))
            scale = jnp.asarray(self.param("batch_norm_scale", ones, (d,)))
            shift = jnp.asarray(self.param("batch_norm_bias", zeros, (d,)))
            x = (x.astype(jnp.float32) * scale + shift).astype(self.dtype)
            if mask is not None:
                x = jnp.where(mask[..., None], x, 0)
        shape = (self.kernel_size, d // self.groups, d)
        start = nn.with_logical_partitioning(nn.initializers.he_normal(), _KERNEL)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), _KERNEL[-1:])
        kernel = self.param("kernel", start, shape)
        bias = self.param("bias", zeros, (d,))
        # Padded alike on both sides, an even kernel would make one output too many at the end.
        padding = self.kernel_size // 2
        y = lax.conv_general_dilated(
            x,
            jnp.asarray(kernel, self.dtype),
            (1,),
            [(padding, self.kernel_size - 1 - padding)],
            dimension_numbers=_WAVE,
            feature_group_count=self.groups,
        )
        return activation(self.activation)(y + jnp.asarray(bias, self.dtype))


class Hubert(nn.Module):
    """HuBERT encoder.

    Attributes:
        config: sizes.
        dtype: of the computation.
    """

    config: HubertConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        c, dtype = self.config, self.dtype
        sizes = zip(c.conv_dim, c.conv_kernel, c.conv_stride, strict=True)
        self.conv = [Conv(*size, c.conv_bias, dtype) for size in sizes]
        if c.feat_extract_norm == "group":
            self.first_norm = ChannelNorm(dtype)
        else:
            self.conv_norm = [LayerNorm(_CONV_NORM_EPS, dtype) for _ in c.conv_dim]
        if c.feat_proj_layer_norm:
            self.feature_norm = LayerNorm(c.layer_norm_eps, dtype)
        self.projection = Linear(c.hidden_size, ("channels", "embed"), dtype=dtype)
        self.positional_conv = PositionalConv(
            c.num_conv_pos_embeddings,
            c.num_conv_pos_embedding_groups,
            c.feat_extract_activation,
            c.conv_pos_batch_norm,
            dtype,
        )
        self.norm = LayerNorm(c.layer_norm_eps, dtype)
        self.encoder = EncoderStack(
            c.num_hidden_layers,
            c.num_attention_heads,
            c.intermediate_size,
            c.hidden_act,
            c.layer_norm_eps,
            pre_norm=c.do_stable_layer_norm,
            dtype=dtype,
            gated_bias=c.num_buckets > 0,
        )
        if c.num_buckets:
            init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("position", "heads"))
            shape = (c.num_buckets, c.num_attention_heads)
            self.relative_position_bias = self.param("relative_position_bias", init, shape)

    def _position_bias(self, num_frames: int) -> Float[Array, "h t t"] | None:
        c = self.config
        if not c.num_buckets:
            return None
        table = jnp.asarray(self.relative_position_bias)
        return position_bias(table, num_frames, c.max_bucket_distance)

    def _first(
        self, waveform: Array, sample_mask: Array | None
    ) -> tuple[Float[Array, "b n c"], Bool[Array, "b n"] | None]:
        """Output of the first convolution and which of it saw nothing but real samples."""
        if sample_mask is None:
            return self.conv[0](waveform[..., None]), None
        waveform = jnp.where(sample_mask, waveform, 0)
        mask = _conv_mask(sample_mask, self.config.conv_kernel[0], self.config.conv_stride[0])
        return self.conv[0](waveform[..., None]), mask

    def _statistics(
        self, x: Float[Array, "b n c"], mask: Bool[Array, "b n"] | None
    ) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
        """Mean and variance of each channel over the frames under the mask."""
        x = x.astype(jnp.float32)
        weights = jnp.ones(x.shape[:2], jnp.float32) if mask is None else mask.astype(jnp.float32)
        count = jnp.maximum(weights.sum(1), 1)[:, None]
        mean = jnp.einsum("bnc,bn->bc", x, weights) / count
        return mean, jnp.einsum("bnc,bn->bc", jnp.square(x - mean[:, None]), weights) / count

    def __call__(
        self,
        waveform: Float[Array, "b samples"],
        sample_mask: Bool[Array, "b samples"] | None = None,
        first_norm_statistics: tuple[Float[Array, "b c"], Float[Array, "b c"]] | None = None,
    ) -> Float[Array, "b frames d"]:
        """Last hidden states, one per `config.hop_samples`.

        Args:
            waveform: 16 kHz samples.
            sample_mask: False for padding. Frames that see padding come out as zeros, and
                nothing else depends on it (the reference lets it into the first norm).
            first_norm_statistics: mean and variance per channel of the whole recording, if this
                is a chunk of it; otherwise taken from the waveform itself.

        Raises:
            ValueError: the waveform is too short for one frame.
        """
        c = self.config
        if c.num_frames(waveform.shape[1]) < 1:
            raise ValueError(
                f"{waveform.shape[1]} samples; one frame needs {c.receptive_field_samples}"
            )
        act = activation(c.feat_extract_activation)
        x, mask = self._first(waveform, sample_mask)
        for i, (kernel, stride) in enumerate(zip(c.conv_kernel, c.conv_stride, strict=True)):
            if i:
                x = self.conv[i](x)
                mask = None if mask is None else _conv_mask(mask, kernel, stride)
            if c.feat_extract_norm == "layer":
                x = self.conv_norm[i](x)
            elif i == 0:
                statistics = first_norm_statistics or self._statistics(x, mask)
                x = self.first_norm(x, *statistics)
            x = act(x)
        if c.feat_proj_layer_norm:
            x = self.feature_norm(x)
        x = self.projection(x)
        if mask is not None:
            x = jnp.where(mask[..., None], x, 0)
        x = x + self.positional_conv(x, mask)
        bias = self._position_bias(x.shape[1])
        if c.do_stable_layer_norm:
            x = self.norm(self.encoder(x, mask, bias))
        else:
            x = self.encoder(self.norm(x), mask, bias)
        return x if mask is None else jnp.where(mask[..., None], x, 0)
