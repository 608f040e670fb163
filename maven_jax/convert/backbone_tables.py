"""Names of the convolutional encoders' tensors in the checkpoints of RJCMA, RJCA and TSAV."""

from __future__ import annotations

from maven_jax.convert.conversions import (
    CONV_2D,
    SAME,
    Conversion,
    Line,
    Shape,
    batch_norm,
    flattened,
    linear,
)
from maven_jax.encoders.audio_resnet import AudioResnetConfig
from maven_jax.encoders.iresnet import IResNetConfig
from maven_jax.encoders.mini_xception import MiniXceptionConfig
from maven_jax.encoders.r2plus1d import R2Plus1DConfig
from maven_jax.encoders.vggish import VggishConfig


def _space_source(shape: Shape) -> Shape:
    height, width, c, d = shape
    return d, c, 1, height, width


def _time_source(shape: Shape) -> Shape:
    length, _, c, d = shape
    return d, c, length, 1, 1


# Three-dimensional convolutions of one tap in time, or in both directions of space.
SPACE = Conversion(_space_source, lambda x, s: x[:, :, 0].transpose(2, 3, 1, 0))
TIME = Conversion(_time_source, lambda x, s: x[..., 0, 0].transpose(2, 1, 0)[:, None])


def _conv(source: str, target: str, kernel: Conversion = CONV_2D, bias: bool = False) -> list[Line]:
    return linear(source, target, kernel, bias)


def iresnet50(c: IResNetConfig) -> list[Line]:
    """ArcFace's IR networks under face.evoLVe's names or InsightFace's, without a classifier."""
    if c.insightface:
        return _insightface(c)
    lines = [
        *_conv("input_layer.0", "stem_conv"),
        *batch_norm("input_layer.1", "stem_norm"),
        ("input_layer.2.weight", "stem_prelu/slope", SAME),
    ]
    for i in range(len(c.units)):
        source, target = f"body.{i}", f"unit{i}"
        lines += [
            *batch_norm(f"{source}.res_layer.0", f"{target}/norm_in"),
            *_conv(f"{source}.res_layer.1", f"{target}/conv1"),
            (f"{source}.res_layer.2.weight", f"{target}/prelu/slope", SAME),
            *_conv(f"{source}.res_layer.3", f"{target}/conv2"),
            *batch_norm(f"{source}.res_layer.4", f"{target}/norm_out"),
        ]
        if c.projects(i):
            lines += _conv(f"{source}.shortcut_layer.0", f"{target}/shortcut_conv")
            lines += batch_norm(f"{source}.shortcut_layer.1", f"{target}/shortcut_norm")
    return [
        *lines,
        *batch_norm("output_layer.0", "norm"),
        *linear("output_layer.3", "embedding", _grid(c)),
        *batch_norm("output_layer.4", "embedding_norm"),
    ]


def _grid(c: IResNetConfig) -> Conversion:
    return flattened(c.grid_size, c.grid_size, c.widths[-1])


def _insightface(c: IResNetConfig) -> list[Line]:
    lines = [
        *_conv("conv1", "stem_conv"),
        *batch_norm("bn1", "stem_norm"),
        ("prelu.weight", "stem_prelu/slope", SAME),
    ]
    for i, source in enumerate(_block_names(c.depths)):
        target = f"unit{i}"
        lines += [
            *batch_norm(f"{source}.bn1", f"{target}/norm_in"),
            *_conv(f"{source}.conv1", f"{target}/conv1"),
            *batch_norm(f"{source}.bn2", f"{target}/norm_middle"),
            (f"{source}.prelu.weight", f"{target}/prelu/slope", SAME),
            *_conv(f"{source}.conv2", f"{target}/conv2"),
            *batch_norm(f"{source}.bn3", f"{target}/norm_out"),
        ]
        if c.projects(i):
            lines += _conv(f"{source}.downsample.0", f"{target}/shortcut_conv")
            lines += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
    return [
        *lines,
        *batch_norm("bn2", "norm"),
        *linear("fc", "embedding", _grid(c)),
        *batch_norm("features", "embedding_norm"),
    ]


def vggish(c: VggishConfig) -> list[Line]:
    """The PyTorch port; it flattens channels last, as we do."""
    lines, place = [], 0
    for i, pooled in enumerate(c.pooled):
        lines += _conv(f"features.{place}", f"block{i}/conv", bias=True)
        place += 3 if pooled else 2  # the convolution, its ReLU, the pooling
    for i in range(len(c.hidden_dims)):
        lines += linear(f"embeddings.{2 * i}", f"hidden{i}")
    return lines + linear(f"embeddings.{2 * len(c.hidden_dims)}", "embedding")


def _split_conv(source: str, target: str) -> list[Line]:
    return [
        *_conv(f"{source}.0", f"{target}/space", SPACE),
        *batch_norm(f"{source}.1", f"{target}/norm"),
        *_conv(f"{source}.3", f"{target}/time", TIME),
    ]


def _block_names(depths: tuple[int, ...]) -> list[str]:
    return [f"layer{stage}.{i}" for stage, n in enumerate(depths, 1) for i in range(n)]


def r2plus1d(c: R2Plus1DConfig) -> list[Line]:
    """The names of torchvision, without the classifier."""
    lines = [*_split_conv("stem", "stem"), *batch_norm("stem.4", "stem_norm")]
    for i, (source, (width, features, stride)) in enumerate(
        zip(_block_names(c.depths), c.blocks, strict=True)
    ):
        target = f"block{i}"
        lines += [
            *_split_conv(f"{source}.conv1.0", f"{target}/conv1"),
            *batch_norm(f"{source}.conv1.1", f"{target}/norm1"),
            *_split_conv(f"{source}.conv2.0", f"{target}/conv2"),
            *batch_norm(f"{source}.conv2.1", f"{target}/norm_out"),
        ]
        if stride > 1 or width != features:
            lines += _conv(f"{source}.downsample.0", f"{target}/shortcut_conv", SPACE)
            lines += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
    return lines


def audio_resnet18(c: AudioResnetConfig) -> list[Line]:
    """The names of torchvision, without the classifier."""
    lines = [*_conv("conv1", "stem_conv"), *batch_norm("bn1", "stem_norm")]
    for i, (source, (width, features, stride)) in enumerate(
        zip(_block_names(c.depths), c.blocks, strict=True)
    ):
        target = f"block{i}"
        lines += [
            *_conv(f"{source}.conv1", f"{target}/conv1"),
            *batch_norm(f"{source}.bn1", f"{target}/norm1"),
            *_conv(f"{source}.conv2", f"{target}/conv2"),
            *batch_norm(f"{source}.bn2", f"{target}/norm_out"),
        ]
        if stride > 1 or width != features:
            lines += _conv(f"{source}.downsample.0", f"{target}/shortcut_conv")
            lines += batch_norm(f"{source}.downsample.1", f"{target}/shortcut_norm")
    return lines


def mini_xception(c: MiniXceptionConfig) -> list[Line]:
    """Keras's names: layers of a kind are numbered in the order in which they were made."""
    lines = []
    for i in range(stem := len(c.stem_dims)):
        lines += _conv(f"conv2d_{i + 1}", f"stem{i}_conv")
        lines += batch_norm(f"batch_normalization_{i + 1}", f"stem{i}_norm")
    for i in range(len(c.widths)):
        conv, norm, block = stem + i + 1, stem + 3 * i + 1, f"block{i}"
        lines += _conv(f"conv2d_{conv}", f"{block}_shortcut_conv")
        lines += batch_norm(f"batch_normalization_{norm}", f"{block}_shortcut_norm")
        for k in (0, 1):
            source, target = f"separable_conv2d_{2 * i + k + 1}", f"{block}_conv{k}"
            lines += _conv(f"{source}.depthwise", f"{target}/depthwise")
            lines += _conv(f"{source}.pointwise", f"{target}/pointwise")
            lines += batch_norm(f"batch_normalization_{norm + k + 1}", f"{target}/norm")
    return [*lines, *_conv(f"conv2d_{stem + len(c.widths) + 1}", "classes", bias=True)]
