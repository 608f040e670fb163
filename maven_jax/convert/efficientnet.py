"""EfficientNets as timm and EmotiEffLib write them: names of tensors, and the sizes they tell."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.convert.conversions import CONV_2D, Conversion, Line, batch_norm, linear
from maven_jax.convert.onnx_file import Node, read_onnx
from maven_jax.convert.pickled_module import read_pickled_module
from maven_jax.convert.tensor_files import Tensors, read_file
from maven_jax.encoders.efficientnet import EfficientNetConfig
from maven_jax.errors import UserError

# The first tensor of the network, whatever stands before its name.
STEM = "conv_stem.weight"
# Strides of the seven stages, the same in all variants.
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
# What timm's `tf_` networks took over from TensorFlow.
TENSORFLOW: Mapping[str, Any] = {"same_padding": True, "norm_eps": 1e-3}
_PLAIN: Mapping[str, Any] = {"same_padding": False, "norm_eps": 1e-5}
_ARCHITECTURE = re.compile(r"(tf_)?efficientnet_b\d(_\w+)?(\.\w+)?")
# The export leaves none of a norm but a convolution's bias: a norm with this and the variance 1
# minus this changes nothing else.
_FOLDED_EPS = 1e-5
DEPTHWISE = Conversion(lambda s: (s[3], 1, s[0], s[1]), lambda x, s: x.transpose(2, 3, 1, 0))


def efficientnet(c: EfficientNetConfig) -> list[Line]:
    """The names of timm."""
    lines = [
        *linear("conv_stem", "stem_conv", CONV_2D, bias=False),
        *batch_norm("bn1", "stem_norm"),
    ]
    for name, *_, expansion in c.blocks:
        source, target = f"blocks.{name}", f"block{name.replace('.', '_')}"
        norms = iter(("bn1", "bn2", "bn3"))
        if expansion > 1:
            lines += linear(f"{source}.conv_pw", f"{target}/conv1", CONV_2D, bias=False)
            lines += batch_norm(f"{source}.{next(norms)}", f"{target}/norm1")
        lines += linear(f"{source}.conv_dw", f"{target}/conv2", DEPTHWISE, bias=False)
        lines += batch_norm(f"{source}.{next(norms)}", f"{target}/norm2")
        lines += linear(f"{source}.se.conv_reduce", f"{target}/reduce", CONV_2D)
        lines += linear(f"{source}.se.conv_expand", f"{target}/restore", CONV_2D)
        last = "conv_pwl" if expansion > 1 else "conv_pw"
        lines += linear(f"{source}.{last}", f"{target}/project", CONV_2D, bias=False)
        lines += batch_norm(f"{source}.{next(norms)}", f"{target}/norm_out")
    return [*lines, *linear("conv_head", "conv", CONV_2D, bias=False), *batch_norm("bn2", "norm")]


def config_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The sizes of an EfficientNet from the shapes of its tensors; what they do not tell is left.

    Raises:
        UserError: these are not the tensors of one.
    """
    stems = [name for name in shapes if name == STEM or name.endswith(f".{STEM}")]
    prefix = min(stems, key=len, default=STEM).removesuffix(STEM)

    def shape(name: str, rank: int = 4) -> tuple[int, ...]:
        found = shapes.get(prefix + name)
        if found is None or len(found) != rank:
            raise UserError(f"no EfficientNet of timm's: {prefix + name} is {found or 'missing'}")
        return found

    depths: dict[int, int] = {}
    for name in shapes:
        block = re.fullmatch(r"blocks\.(\d{1,2})\.(\d{1,2})\.conv_dw\.weight", name[len(prefix) :])
        if block and name.startswith(prefix):
            stage = int(block[1])
            depths[stage] = max(depths.get(stage, 0), int(block[2]) + 1)
    if sorted(depths) != list(range(len(_STRIDES))):
        raise UserError(f"no EfficientNet of timm's: {len(depths)} stages, expected 7")
    widths, kernels, expansions = [], [], []
    for stage in range(len(depths)):
        block = f"blocks.{stage}.0"
        wide = f"{prefix}{block}.conv_pwl.weight" in shapes
        inner = shape(f"{block}.conv_pw.weight") if wide else (1, 1)
        widths.append(shape(f"{block}.{'conv_pwl' if wide else 'conv_pw'}.weight")[0])
        kernels.append(shape(f"{block}.conv_dw.weight")[2])
        expansions.append(inner[0] // max(inner[1], 1))
    stem = shape(STEM)
    return {
        "num_channels": stem[1],
        "stem_dim": stem[0],
        "widths": tuple(widths),
        "depths": tuple(depths[i] for i in range(len(depths))),
        "kernels": tuple(kernels),
        "strides": _STRIDES,
        "expansions": tuple(expansions),
        "head_dim": shape("conv_head.weight")[0],
    }


def of_architecture(name: Any) -> Mapping[str, Any] | None:
    """What timm's name of a network tells beside the shapes; None for another network."""
    match = _ARCHITECTURE.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    return TENSORFLOW if match[1] else _PLAIN


@dataclass(frozen=True)
class EfficientNetFile:
    """An EfficientNet as a file has it: its tensors, and what it tells beside their shapes."""

    tensors: Tensors
    config: dict[str, Any]


def read_efficientnet(path: Path) -> EfficientNetFile:
    """Reads an EfficientNet in any form in which they are handed out.

    Args:
        path: an ONNX file, a whole pickled module or a state dict, or safetensors.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    if path.suffix == ".onnx":
        return _of_onnx(path)
    told: dict[str, Any] = {}
    if zipfile.is_zipfile(path):
        module = read_pickled_module(path)
        tensors = module.tensors
        for name, (kind, state) in module.modules.items():
            if name.endswith(STEM.removesuffix(".weight")):
                told["same_padding"] = kind == "Conv2dSame"
            if name.rpartition(".")[2] == "bn1" and isinstance(state.get("eps"), float):
                told["norm_eps"] = state["eps"]
    else:
        tensors = read_file(path)
    try:
        return EfficientNetFile(tensors, config_of(tensors.shapes) | told)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _of_onnx(path: Path) -> EfficientNetFile:
    """An exported network; its batch norms are folded into the convolutions.

    The export gives folded convolutions names of its own. Their order tells which they are.
    """
    file = read_onnx(path)
    convs = [n for n in file.nodes if n.op == "Conv" and file.tensors.keys() & n.inputs[1:2]]
    weights: dict[str, np.ndarray] = {}

    def is_depthwise(at: int) -> bool:
        return at < len(convs) and convs[at].numbers.get("group", [1])[0] > 1

    def take(node: Node, name: str, norm: str | None) -> np.ndarray:
        kernel = weights[f"{name}.weight"] = file.tensors[node.inputs[1]]
        bias = file.tensors.get(node.inputs[2]) if len(node.inputs) > 2 else None
        bias = np.zeros(len(kernel), np.float32) if bias is None else bias
        if norm is None:
            weights[f"{name}.bias"] = bias
        else:
            weights[f"{norm}.weight"] = np.ones_like(bias)
            weights[f"{norm}.bias"] = bias
            weights[f"{norm}.running_mean"] = np.zeros_like(bias)
            weights[f"{norm}.running_var"] = np.full_like(bias, 1 - _FOLDED_EPS)
        return kernel

    if any(node.op == "BatchNormalization" for node in file.nodes) or len(convs) < 3:
        raise UserError(f"{path}: no EfficientNet with its batch norms folded into convolutions")
    take(convs[0], "conv_stem", "bn1")
    at, stage, block, width = 1, -1, 0, 0
    while is_depthwise(at) or is_depthwise(at + 1):
        wide = not is_depthwise(at)
        parts = [("conv_dw", "bn2" if wide else "bn1"), ("se.conv_reduce", None)]
        parts += [("se.conv_expand", None), ("conv_pwl", "bn3") if wide else ("conv_pw", "bn2")]
        parts = [("conv_pw", "bn1")] * wide + parts
        if at + len(parts) > len(convs):
            break
        features = len(file.tensors[convs[at + len(parts) - 1].inputs[1]])
        stage, block = (stage, block + 1) if features == width else (stage + 1, 0)
        width = features
        for node, (name, norm) in zip(convs[at:], parts):
            name = f"blocks.{stage}.{block}.{name}"
            take(node, name, norm and f"blocks.{stage}.{block}.{norm}")
        at += len(parts)
    if at < len(convs):
        take(convs[at], "conv_head", "bn2")
    for node in file.nodes:
        kernel = file.tensors.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if node.op == "Gemm" and kernel is not None:
            transposed = node.numbers.get("transB", [0])[0]
            weights["classifier.weight"] = kernel if transposed else kernel.T
            if len(node.inputs) > 2 and node.inputs[2] in file.tensors:
                weights["classifier.bias"] = file.tensors[node.inputs[2]]
    pads = convs[0].numbers.get("pads", [])
    told = {"same_padding": pads != [1, 1, 1, 1], "norm_eps": _FOLDED_EPS}
    shapes = {name: value.shape for name, value in weights.items()}
    try:
        config = config_of(shapes) | told
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return EfficientNetFile(Tensors(shapes, weights.__getitem__, file.sha256), config)
