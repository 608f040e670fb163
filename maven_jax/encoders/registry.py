"""Encoders by the name of their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from maven_jax.encoders import hf_config
from maven_jax.encoders.audio_resnet import AudioResnet18, AudioResnetConfig
from maven_jax.encoders.beit import BeitStack
from maven_jax.encoders.bert import Bert, BertConfig
from maven_jax.encoders.convnext import ConvNext, ConvNextConfig
from maven_jax.encoders.deberta import Deberta, DebertaConfig
from maven_jax.encoders.efficientnet import EfficientNet, EfficientNetConfig
from maven_jax.encoders.hubert import Hubert, HubertConfig, WavlmConfig
from maven_jax.encoders.iresnet import IResNet, IResNetConfig
from maven_jax.encoders.mini_xception import MiniXception, MiniXceptionConfig
from maven_jax.encoders.modernbert import ModernBert, ModernBertConfig
from maven_jax.encoders.mpnet import Mpnet, MpnetConfig
from maven_jax.encoders.r2plus1d import R2Plus1D, R2Plus1DConfig
from maven_jax.encoders.roberta import Roberta, RobertaConfig
from maven_jax.encoders.swin import Swin, SwinConfig
from maven_jax.encoders.swinv2 import Swinv2, Swinv2Config
from maven_jax.encoders.vggish import Vggish, VggishConfig
from maven_jax.encoders.videomae import VideoMae, VideoMaeConfig
from maven_jax.encoders.vit import (
    ClipConfig,
    Dinov2Config,
    Dinov2RegistersConfig,
    Vit,
    VitConfig,
)
from maven_jax.encoders.whisper import Whisper, WhisperConfig
from maven_jax.errors import UserError

# The largest encoders that features were ever made with have a tenth of it.
MOST_PARAMETERS = 5_000_000_000
Shapes = tuple[jax.ShapeDtypeStruct, ...]


@dataclass(frozen=True)
class _BeitConfig:
    """What BEiT's layers need of its config, under Hugging Face's names and with its defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    layer_scale_init_value: float = 0.1

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> _BeitConfig:
        self = hf_config.from_hf(cls, config)
        hf_config.check_divides(self, "num_attention_heads", "hidden_size")
        return self


def _beit(c: _BeitConfig, dtype: DTypeLike) -> BeitStack:
    return BeitStack(
        num_layers=c.num_hidden_layers,
        num_heads=c.num_attention_heads,
        mlp_dim=c.intermediate_size,
        layer_scale_init=c.layer_scale_init_value,
        activation=c.hidden_act,
        norm_eps=c.layer_norm_eps,
        dtype=dtype,
    )


@dataclass(frozen=True)
class Kind:
    """A kind of encoder.

    Attributes:
        read: a config as a mapping -> the sizes; a UserError if they are impossible.
        make: (sizes, dtype) -> the module.
        example: sizes -> shapes of the smallest inputs that the module can be initialised with.
        published: configs and weights are Hugging Face's; otherwise the configs are our own.
    """

    read: Callable[[Mapping[str, Any]], Any]
    make: Callable[..., nn.Module]
    example: Callable[[Any], Shapes]
    published: bool


def _floats(*shape: int) -> Shapes:
    return (jax.ShapeDtypeStruct((1, *shape), jnp.float32),)


def _tokens(c: Any) -> Shapes:
    return jax.ShapeDtypeStruct((1, 2), jnp.int32), jax.ShapeDtypeStruct((1, 2), jnp.bool_)


def _wave(c: HubertConfig) -> Shapes:
    return _floats(c.receptive_field_samples + c.hop_samples)


def _image(c: Any) -> Shapes:
    return _floats(c.image_size, c.image_size, c.num_channels)


KINDS: dict[str, Kind] = {
    "swin": Kind(SwinConfig.from_hf, Swin, _image, True),
    "swinv2": Kind(Swinv2Config.from_hf, Swinv2, _image, True),
    "vit": Kind(VitConfig.from_hf, Vit, _image, True),
    "vit_mae": Kind(VitConfig.from_hf, Vit, _image, True),
    "clip": Kind(ClipConfig.from_hf, Vit, _image, True),
    "clip_vision_model": Kind(ClipConfig.from_hf, Vit, _image, True),
    "dinov2": Kind(Dinov2Config.from_hf, Vit, _image, True),
    "dinov2_with_registers": Kind(Dinov2RegistersConfig.from_hf, Vit, _image, True),
    "convnext": Kind(ConvNextConfig.from_hf, ConvNext, _image, True),
    "videomae": Kind(
        VideoMaeConfig.from_hf,
        VideoMae,
        lambda c: _floats(c.num_frames, c.image_size, c.image_size, c.num_channels),
        True,
    ),
    "hubert": Kind(HubertConfig.from_hf, Hubert, _wave, True),
    "wav2vec2": Kind(HubertConfig.from_hf, Hubert, _wave, True),
    "wavlm": Kind(WavlmConfig.from_hf, Hubert, _wave, True),
    "whisper": Kind(WhisperConfig.from_hf, Whisper, lambda c: _floats(2, c.num_mel_bins), True),
    "roberta": Kind(RobertaConfig.from_hf, Roberta, _tokens, True),
    "xlm-roberta": Kind(RobertaConfig.from_hf, Roberta, _tokens, True),
    "mpnet": Kind(MpnetConfig.from_hf, Mpnet, _tokens, True),
    "deberta-v2": Kind(DebertaConfig.from_hf, Deberta, _tokens, True),
    "modernbert": Kind(ModernBertConfig.from_hf, ModernBert, _tokens, True),
    "bert": Kind(BertConfig.from_hf, Bert, _tokens, True),
    "beit": Kind(_BeitConfig.from_hf, _beit, lambda c: _floats(2, c.hidden_size), True),
    "iresnet50": Kind(
        IResNetConfig.from_config,
        IResNet,
        _image,
        False,
    ),
    "efficientnet": Kind(
        EfficientNetConfig.from_config,
        EfficientNet,
        _image,
        False,
    ),
    "mini_xception": Kind(MiniXceptionConfig.from_config, MiniXception, _image, False),
    "vggish": Kind(
        VggishConfig.from_config, Vggish, lambda c: _floats(c.num_frames, c.num_bands), False
    ),
    "r2plus1d": Kind(
        R2Plus1DConfig.from_config,
        R2Plus1D,
        lambda c: _floats(c.num_frames, c.image_size, c.image_size, c.num_channels),
        False,
    ),
    "audio_resnet18": Kind(
        AudioResnetConfig.from_config,
        AudioResnet18,
        lambda c: _floats(c.num_bands, 32),
        False,
    ),
}


def kind_of(name: str) -> Kind:
    """The kind of that name.

    Raises:
        UserError: there is none.
    """
    if name not in KINDS:
        raise UserError(f"encoder kind {name!r} is not one of {', '.join(KINDS)}")
    return KINDS[name]


def make_encoder(
    name: str, config: Mapping[str, Any], *, dtype: DTypeLike = jnp.float32, remat: bool = False
) -> nn.Module:
    """An encoder module without weights.

    Args:
        name: its kind.
        config: its sizes, Hugging Face's `config.json` or our own.
        dtype: of the computation.
        remat: recompute blocks in the backward pass; convolutional encoders only.

    Raises:
        UserError: the kind is unknown, the config impossible, or `remat` not possible.
    """
    kind = kind_of(name)
    possible = [n for n, k in KINDS.items() if "remat" in getattr(k.make, "__annotations__", ())]
    if remat and name not in possible:
        raise UserError(f"encoder kind {name!r} has no remat; {', '.join(possible)} have")
    options = {"remat": True} if remat else {}
    return kind.make(kind.read(config), dtype=dtype, **options)


def abstract_variables(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Collection -> tree of the shapes of an encoder's variables.

    Raises:
        UserError: the kind is unknown, or the sizes make no encoder or too large a one.
    """
    kind = kind_of(name)
    sizes = kind.read(config)
    try:
        module = kind.make(sizes, dtype=jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), *kind.example(sizes))
    except UserError:
        raise
    except Exception as error:  # of any kind, wherever a size does not fit
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"config.json: these sizes make no {name} encoder ({line})") from error
    count = sum(x.size for x in jax.tree.leaves(variables))
    if count > MOST_PARAMETERS:
        raise UserError(
            f"config.json: a {name} encoder of {count:,} parameters; at most {MOST_PARAMETERS:,} "
            "are made"
        )
    return dict(nn.meta.unbox(variables))  # pyright: ignore
