"""How tensors of PyTorch modules become our parameters: layouts, and lines of tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from maven_jax.encoders.inference_batch_norm import STATISTICS

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conversion:
    """How a foreign tensor becomes ours.

    Attributes:
        source_shape: our shape -> the foreign one.
        convert: (foreign tensor, our shape) -> our tensor.
    """

    source_shape: Callable[[Shape], Shape]
    convert: Callable[[np.ndarray, Shape], np.ndarray]


def _transposed(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor.T.reshape(shape)


def _reshaped(tensor: np.ndarray, shape: Shape) -> np.ndarray:
    return tensor.reshape(shape)


SAME = Conversion(lambda s: s, _reshaped)
LINEAR = Conversion(lambda s: s[::-1], _transposed)
HEADS_IN = Conversion(lambda s: (s[1] * s[2], s[0]), _transposed)  # (embed, heads, head_dim)
# Query, key and value in one: (embed, 3, heads, head_dim).
ALL_HEADS_IN = Conversion(lambda s: (s[1] * s[2] * s[3], s[0]), _transposed)
HEADS_BIAS = Conversion(lambda s: (s[0] * s[1],), _reshaped)
HEADS_OUT = Conversion(lambda s: (s[2], s[0] * s[1]), _transposed)  # (heads, head_dim, embed)
CONV_1D = Conversion(lambda s: s[::-1], lambda x, s: x.transpose(2, 1, 0))
CONV_2D = Conversion(lambda s: (s[3], s[2], s[0], s[1]), lambda x, s: x.transpose(2, 3, 1, 0))
CONV_3D = Conversion(
    lambda s: (s[4], s[3], *s[:3]), lambda x, s: x.transpose(2, 3, 4, 1, 0).reshape(s)
)
POSITIONS = Conversion(lambda s: (1, *s), _reshaped)
TOKEN = Conversion(lambda s: s[1:], _reshaped)
SCALE_PER_HEAD = Conversion(lambda s: (*s, 1, 1), _reshaped)
PER_HEAD = Conversion(lambda s: (1, *s, 1, 1), _reshaped)

# As BERT names them.
QKV = ("query", "key", "value")

# (foreign name, our path, conversion). A path that starts with the name of a collection of
# variables other than parameters lies in that collection.
Line = tuple[str, str, Conversion]


def flattened(height: int, width: int, channels: int) -> Conversion:
    """A linear layer over a flattened image: channels first in PyTorch, channels last in ours."""

    def convert(x: np.ndarray, shape: Shape) -> np.ndarray:
        x = x.reshape(-1, channels, height, width)
        return x.transpose(2, 3, 1, 0).reshape(shape)

    return Conversion(lambda s: s[::-1], convert)


def linear(source: str, target: str, kernel: Conversion = LINEAR, bias: bool = True) -> list[Line]:
    """Kernel and bias of a linear layer or, with another conversion, of a convolution."""
    bias_conversion = HEADS_BIAS if kernel is HEADS_IN else SAME
    lines = [(f"{source}.weight", f"{target}/kernel", kernel)]
    return [*lines, (f"{source}.bias", f"{target}/bias", bias_conversion)] if bias else lines


def norm(source: str, target: str) -> list[Line]:
    """Scale and bias of a norm."""
    return [
        (f"{source}.weight", f"{target}/scale", SAME),
        (f"{source}.bias", f"{target}/bias", SAME),
    ]


def batch_norm(source: str, target: str) -> list[Line]:
    """Scale and bias, and the running statistics in their own collection."""
    return [
        *norm(source, target),
        (f"{source}.running_mean", f"{STATISTICS}/{target}/mean", SAME),
        (f"{source}.running_var", f"{STATISTICS}/{target}/var", SAME),
    ]


def attention(
    source: str, names: Sequence[str], out: str, target: str, biases: Sequence[bool] = (True,) * 3
) -> list[Line]:
    """Query, key and value under `names`, and the output projection."""
    lines = []
    for name, ours, bias in zip(names, QKV, biases, strict=True):
        lines += linear(f"{source}.{name}", f"{target}/{ours}", HEADS_IN, bias)
    return lines + linear(out, f"{target}/out", HEADS_OUT)
