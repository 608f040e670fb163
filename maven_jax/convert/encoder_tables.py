"""Which tensor of a published checkpoint becomes which of our parameters, and how.

One table per encoder; those of convolutional ones are in `backbone_tables`, of words in
`word_tables`. A line is (source,
target, conversion): the tensor's name, our path. `{}` in the source counts layers; if the target
has none, the layers are stacked on a leading axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from maven_jax.convert.backbone_tables import (
    audio_resnet18,
    iresnet50,
    mini_xception,
    r2plus1d,
    vggish,
)
from maven_jax.convert.conversions import (
    CONV_1D,
    CONV_2D,
    CONV_3D,
    PER_HEAD,
    POSITIONS,
    QKV,
    SAME,
    SCALE_PER_HEAD,
    TOKEN,
    Conversion,
    Line,
    Shape,
    attention,
    linear,
    norm,
)
from maven_jax.convert.efficientnet import DEPTHWISE, efficientnet
from maven_jax.convert.word_tables import deberta, modernbert, mpnet, roberta
from maven_jax.encoders.beit import BeitStack
from maven_jax.encoders.convnext import ConvNextConfig
from maven_jax.encoders.hubert import HubertConfig
from maven_jax.encoders.swin import SwinConfig
from maven_jax.encoders.swinv2 import Swinv2Config
from maven_jax.encoders.videomae import VideoMaeConfig
from maven_jax.encoders.vit import VitConfig
from maven_jax.encoders.whisper import WhisperConfig


def _hubert(c: HubertConfig) -> list[Line]:
    conv, target = "feature_extractor.conv_layers.{}", "encoder/layers"
    source, positional = "encoder.layers.{}", "encoder.pos_conv_embed"
    lines = linear(f"{conv}.conv", "conv_{}", CONV_1D, c.conv_bias)
    if c.feat_extract_norm == "group":
        lines += norm("feature_extractor.conv_layers.0.layer_norm", "first_norm")
    else:
        lines += norm(f"{conv}.layer_norm", "conv_norm_{}")
    if c.feat_proj_layer_norm:
        lines += norm("feature_projection.layer_norm", "feature_norm")
    if c.conv_pos_batch_norm:
        lines += [
            (f"{positional}.batch_norm.folded_scale", "positional_conv/batch_norm_scale", SAME),
            (f"{positional}.batch_norm.folded_bias", "positional_conv/batch_norm_bias", SAME),
        ]
    if c.num_buckets:
        first = source.format(0)
        gate = f"{source}.attention.gru_rel_pos"
        lines += [
            (f"{first}.attention.rel_attn_embed.weight", "relative_position_bias", SAME),
            *linear(f"{gate}_linear", f"{target}/gate/projection"),
            (f"{gate}_const", f"{target}/gate/reset_scale", PER_HEAD),
        ]
    return [
        *lines,
        *linear("feature_projection.projection", "projection"),
        *linear(f"{positional}.conv", "positional_conv", CONV_1D),
        *norm("encoder.layer_norm", "norm"),
        *attention(
            f"{source}.attention",
            ("q_proj", "k_proj", "v_proj"),
            f"{source}.attention.out_proj",
            f"{target}/attention",
        ),
        *norm(f"{source}.layer_norm", f"{target}/attention_norm"),
        *linear(f"{source}.feed_forward.intermediate_dense", f"{target}/mlp/up"),
        *linear(f"{source}.feed_forward.output_dense", f"{target}/mlp/down"),
        *norm(f"{source}.final_layer_norm", f"{target}/mlp_norm"),
    ]


def _whisper(c: WhisperConfig) -> list[Line]:
    source, target = "layers.{}", "encoder/layers"
    return [
        *linear("conv1", "conv1", CONV_1D),
        *linear("conv2", "conv2", CONV_1D),
        ("embed_positions.weight", "position_embedding", SAME),
        *attention(
            f"{source}.self_attn",
            ("q_proj", "k_proj", "v_proj"),
            f"{source}.self_attn.out_proj",
            f"{target}/attention",
            (True, False, True),
        ),
        *norm(f"{source}.self_attn_layer_norm", f"{target}/attention_norm"),
        *linear(f"{source}.fc1", f"{target}/mlp/up"),
        *linear(f"{source}.fc2", f"{target}/mlp/down"),
        *norm(f"{source}.final_layer_norm", f"{target}/mlp_norm"),
        *norm("layer_norm", "norm"),
    ]


def _swin(c: SwinConfig) -> list[Line]:
    lines = [
        *linear("embeddings.patch_embeddings.projection", "patch_embedding", CONV_2D),
        *norm("embeddings.norm", "patch_norm"),
        *norm("layernorm", "norm"),
    ]
    if c.use_absolute_embeddings:
        lines += [("embeddings.position_embeddings", "position_embedding", POSITIONS)]
    for stage in range(len(c.depths)):
        source, target = f"encoder.layers.{stage}.blocks.{{}}", f"stage{stage}_block{{}}"
        inside = f"{source}.attention.self"
        table = "relative_position_bias"
        lines += [
            (f"{inside}.{table}_table", f"{target}/attention/{table}", SAME),
            *attention(
                inside,
                QKV,
                f"{source}.attention.output.dense",
                f"{target}/attention",
                (c.qkv_bias,) * 3,
            ),
            *norm(f"{source}.layernorm_before", f"{target}/attention_norm"),
            *norm(f"{source}.layernorm_after", f"{target}/mlp_norm"),
            *linear(f"{source}.intermediate.dense", f"{target}/mlp/up"),
            *linear(f"{source}.output.dense", f"{target}/mlp/down"),
        ]
        if stage:
            down, merging = f"encoder.layers.{stage - 1}.downsample", f"stage{stage}_merging"
            lines += norm(f"{down}.norm", f"{merging}/norm")
            lines += linear(f"{down}.reduction", f"{merging}/reduction", bias=False)
    return lines


def _swinv2(c: Swinv2Config) -> list[Line]:
    """Swin's, but for what makes the scores: its key has no bias."""
    kept = [
        line
        for line in _swin(c)
        if "relative_position_bias" not in line[1] and not line[1].endswith("/key/bias")
    ]
    for stage in range(len(c.depths)):
        inside = f"encoder.layers.{stage}.blocks.{{}}.attention.self"
        target, network = f"stage{stage}_block{{}}/attention", "continuous_position_bias_mlp"
        kept += [
            (f"{inside}.logit_scale", f"{target}/log_scale", SCALE_PER_HEAD),
            *linear(f"{inside}.{network}.0", f"{target}/bias_up"),
            *linear(f"{inside}.{network}.2", f"{target}/bias_down", bias=False),
        ]
    return kept


def _convnext(c: ConvNextConfig) -> list[Line]:
    lines = [
        *linear("embeddings.patch_embeddings", "stage0_reduction", CONV_2D),
        *norm("embeddings.layernorm", "stage0_norm"),
        *norm("layernorm", "norm"),
    ]
    for stage in range(len(c.depths)):
        source, target = f"encoder.stages.{stage}.layers.{{}}", f"stage{stage}_block{{}}"
        lines += [
            *linear(f"{source}.dwconv", f"{target}/depthwise", DEPTHWISE),
            *norm(f"{source}.layernorm", f"{target}/norm"),
            *linear(f"{source}.pwconv1", f"{target}/up"),
            *linear(f"{source}.pwconv2", f"{target}/down"),
        ]
        if c.layer_scale_init_value > 0:
            lines += [(f"{source}.layer_scale_parameter", f"{target}/scale", SAME)]
        if stage:
            down = f"encoder.stages.{stage}.downsampling_layer"
            lines += norm(f"{down}.0", f"stage{stage}_norm")
            lines += linear(f"{down}.1", f"stage{stage}_reduction", CONV_2D)
    return lines


def _beit(c: BeitStack) -> list[Line]:
    """The layers only: embeddings, 2-D position biases, pooler and heads stay behind."""
    source, target = "encoder.layer.{}", "layers"
    lines = []
    if c.layer_scale_init > 0:
        lines += [
            (f"{source}.lambda_1", f"{target}/attention_scale", SAME),
            (f"{source}.lambda_2", f"{target}/mlp_scale", SAME),
        ]
    return [*lines, *_vit_layers(source, target, key_bias=False)]


def _vit(c: VitConfig) -> list[Line]:
    source, target = "encoder.layer.{}", "encoder/layers"
    lines = linear(
        "embeddings.patch_embeddings.projection", "patch_embedding", CONV_2D, c.patch_bias
    )
    # CLIP's token has one axis, its positions are an embedding.
    if c.norm_first:
        lines += [
            ("embeddings.cls_token", "cls_token", TOKEN),
            ("embeddings.position_embeddings", "position_embedding", SAME),
            *norm("first_norm", "first_norm"),
        ]
    else:
        lines += [
            ("embeddings.cls_token", "cls_token", POSITIONS),
            ("embeddings.position_embeddings", "position_embedding", POSITIONS),
        ]
    if c.num_register_tokens:
        lines += [("embeddings.register_tokens", "register_tokens", POSITIONS)]
    if c.layer_scale:
        lines += [
            (f"{source}.layer_scale1.lambda1", f"{target}/attention_scale", SAME),
            (f"{source}.layer_scale2.lambda1", f"{target}/mlp_scale", SAME),
        ]
    return [*lines, *norm("layernorm", "norm"), *_vit_layers(source, target)]


def _videomae(c: VideoMaeConfig) -> list[Line]:
    lines = linear("embeddings.patch_embeddings.projection", "patch_embedding", CONV_3D)
    lines += [] if c.use_mean_pooling else norm("layernorm", "norm")
    return [*lines, *_vit_layers("encoder.layer.{}", "encoder/layers", key_bias=False)]


def _vit_layers(source: str, target: str, key_bias: bool = True) -> list[Line]:
    return [
        *attention(
            f"{source}.attention.attention",
            QKV,
            f"{source}.attention.output.dense",
            f"{target}/attention",
            (True, key_bias, True),
        ),
        *norm(f"{source}.layernorm_before", f"{target}/attention_norm"),
        *norm(f"{source}.layernorm_after", f"{target}/mlp_norm"),
        *linear(f"{source}.intermediate.dense", f"{target}/mlp/up"),
        *linear(f"{source}.output.dense", f"{target}/mlp/down"),
    ]


@dataclass(frozen=True)
class Table:
    """How the checkpoints of a kind of encoder are read.

    Attributes:
        lines: from our config (of BEiT, the module) to the table's lines.
        layers: from our config and a source to the number of layers that its `{}` counts.
        optional: sources that may be missing; zeros then.
        renames: (regular expression, replacement) of other names that the tensors go by.
    """

    lines: Callable[[Any], list[Line]]
    layers: Callable[[Any, str], int]
    optional: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()


# Since transformers 5 these modules have other names in memory; files keep the old ones, a plain
# torch.save of the state dict does not.
_VISION_RENAMES = (
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
)


def _vision_renames(inner: str) -> tuple[tuple[str, str], ...]:
    names = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"))
    return _VISION_RENAMES + tuple(
        (rf"\.attention\.{source}\.", f".attention.{inner}.{ours}.") for source, ours in names
    )


# CLIP's and DINOv2's names for what ViT has.
_CLIP_RENAMES = (
    (r"^vision_model\.", ""),
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^embeddings\.position_embedding\.weight$", "embeddings.position_embeddings"),
    (r"^pre_layrnorm\.", "first_norm."),
    (r"^post_layernorm\.", "layernorm."),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.self_attn\.out_proj\.", ".attention.output.dense."),
    *(
        (rf"\.self_attn\.{theirs}_proj\.", f".attention.attention.{ours}.")
        for theirs, ours in zip("qkv", ("query", "key", "value"))
    ),
    (r"\.layer_norm1\.", ".layernorm_before."),
    (r"\.layer_norm2\.", ".layernorm_after."),
    *_VISION_RENAMES[:2],
)
_VIT_RENAMES = (
    *_vision_renames("attention"),
    (r"^((?:\w+\.)?)layers\.", r"\1encoder.layer."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


def _no_layers(config: Any, source: str) -> int:
    raise AssertionError(f"{source} counts layers")


TABLES: dict[str, Table] = {
    "swin": Table(
        _swin,
        lambda c, source: c.depths[int(source.split(".")[2])],
        renames=(
            *_vision_renames("self"),
            (
                r"\.attention\.relative_position_bias\.relative_position_bias_table$",
                ".attention.self.relative_position_bias_table",
            ),
        ),
    ),
    "swinv2": Table(_swinv2, lambda c, source: c.depths[int(source.split(".")[2])]),
    "convnext": Table(_convnext, lambda c, source: c.depths[int(source.split(".")[2])]),
    **{
        kind: Table(
            _hubert,
            lambda c, source: (
                len(c.conv_dim) if source.startswith("feature_extractor") else c.num_hidden_layers
            ),
        )
        for kind in ("hubert", "wav2vec2", "wavlm")
    },
    **{
        kind: Table(
            _vit,
            lambda c, source: c.num_hidden_layers,
            renames=_CLIP_RENAMES if kind.startswith("clip") else _VIT_RENAMES,
        )
        for kind in (
            "vit",
            "vit_mae",
            "clip",
            "clip_vision_model",
            "dinov2",
            "dinov2_with_registers",
        )
    },
    "videomae": Table(
        _videomae,
        lambda c, source: c.num_hidden_layers,
        renames=(
            *_VIT_RENAMES,
            (r"\.attention\.q_bias$", ".attention.query.bias"),
            (r"\.attention\.v_bias$", ".attention.value.bias"),
        ),
    ),
    "whisper": Table(_whisper, lambda c, source: c.encoder_layers),
    # RoBERTa took over BERT's names.
    **{
        kind: Table(
            roberta,
            lambda c, source: c.num_hidden_layers,
            optional=("embeddings.token_type_embeddings.weight",),
        )
        for kind in ("roberta", "xlm-roberta", "bert")
    },
    "mpnet": Table(
        mpnet,
        lambda c, source: c.num_hidden_layers,
        renames=(
            *((rf"\.attn\.{n[0]}\.", f".self.{n}.") for n in QKV),
            (r"\.attn\.o\.", ".output.dense."),
            (r"\.attention\.LayerNorm\.", ".attention.output.LayerNorm."),
        ),
    ),
    "modernbert": Table(modernbert, lambda c, source: c.num_hidden_layers),
    "deberta-v2": Table(
        deberta,
        lambda c, source: c.num_hidden_layers,
        renames=((r"\.self\.(query|key|value)_proj\.", r".self.\1."),),
    ),
    "beit": Table(
        _beit,
        lambda c, source: c.num_layers,
        renames=(*_vision_renames("attention"), (r"^((?:beit\.)?)layers\.", r"\1encoder.layer.")),
    ),
    "iresnet50": Table(iresnet50, _no_layers),
    "efficientnet": Table(efficientnet, _no_layers),
    "mini_xception": Table(mini_xception, _no_layers),
    "vggish": Table(vggish, _no_layers),
    "r2plus1d": Table(r2plus1d, _no_layers),
    "audio_resnet18": Table(audio_resnet18, _no_layers),
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint.

    Attributes:
        source: its name, without the checkpoint's prefix.
        target: path of our parameter.
        layer: its place on the parameter's leading axis, None if it is the whole.
        conversion: how it becomes ours.
    """

    source: str
    target: str
    layer: int | None
    conversion: Conversion

    def target_shape(self, parameter_shape: Shape) -> Shape:
        return parameter_shape if self.layer is None else parameter_shape[1:]

    def source_shape(self, parameter_shape: Shape) -> Shape:
        shape = self.conversion.source_shape(self.target_shape(parameter_shape))
        assert math.prod(shape) == math.prod(self.target_shape(parameter_shape))
        return shape


def entries(kind: str, config: Any) -> Iterator[Entry]:
    """Every tensor that an encoder of that config needs."""
    table = TABLES[kind]
    for source, target, conversion in table.lines(config):
        if "{}" not in source:
            yield Entry(source, target, None, conversion)
            continue
        for i in range(table.layers(config, source)):
            stacked = "{}" not in target
            yield Entry(source.format(i), target.format(i), i if stacked else None, conversion)
