"""Which tensors of a released network become which of our variables, and how.

The names are those of the code released with MAVEN (CVPRW 2025). Paths here are those of
`conversions.Line`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maven_jax.convert.conversions import (
    HEADS_OUT,
    SAME,
    Conversion,
    Line,
    Shape,
    linear,
    norm,
)
from maven_jax.convert.encoder_tables import TABLES, entries
from maven_jax.encoders.beit import BeitStack


@dataclass(frozen=True)
class Piece:
    """A variable here, or one layer of it, and what it is made of.

    Attributes:
        there: names of tensors; several are added up, as the two biases of a PyTorch LSTM are.
        here: path of the variable.
        conversion: how they become ours.
        layer: its place on the variable's leading axis, None if it is the whole.
    """

    there: tuple[str, ...]
    here: str
    conversion: Conversion
    layer: int | None = None

    def shape_here(self, variable: Shape) -> Shape:
        return variable if self.layer is None else variable[1:]

    def shape_there(self, variable: Shape) -> Shape:
        return self.conversion.foreign_shape(self.shape_here(variable))


@dataclass(frozen=True)
class Table:
    """All tensors of a released network.

    Attributes:
        pieces: those that become ours; they fill every variable that is not in `start`.
        left_out: tensors that are read by nobody, and why; they may be absent.
        duplicates: (name, its other name): two names of one tensor, whose values must agree.
        start: our variables that the release has not; they are zero.
        renames: (regular expression, replacement) of other names that the tensors go by.
    """

    pieces: list[Piece]
    left_out: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    start: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def names(self) -> set[str]:
        """Every name that the state dict may have."""
        wanted = {name for piece in self.pieces for name in piece.there}
        return wanted | {b for _, b in self.duplicates} | set(self.left_out)

    def renamed(self, name: str) -> str:
        """The name that this table uses for the tensor."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


def _third(which: int) -> Conversion:
    """Query, key or value of `in_proj_weight`, (3 d, d), into (embed, heads, head_dim)."""

    def convert(tensor: np.ndarray, shape: Shape) -> np.ndarray:
        return np.split(tensor, 3)[which].T.reshape(shape)

    return Conversion(lambda s: (3 * s[1] * s[2], s[0]), convert)


def _third_bias(which: int) -> Conversion:
    """Query, key or value of `in_proj_bias`, (3 d,), into (heads, head_dim)."""

    def convert(tensor: np.ndarray, shape: Shape) -> np.ndarray:
        return np.split(tensor, 3)[which].reshape(shape)

    return Conversion(lambda s: (3 * s[0] * s[1],), convert)


def _pieces(lines: Iterable[Line]) -> list[Piece]:
    return [Piece((there,), here, conversion) for there, here, conversion in lines]


def _multihead(there: str, here: str) -> list[Piece]:
    """`torch.nn.MultiheadAttention` into `MultiHeadAttention`."""
    pieces = []
    for i, name in enumerate(("query", "key", "value")):
        pieces += [
            Piece((f"{there}.in_proj_weight",), f"{here}/{name}_kernel", _third(i)),
            Piece((f"{there}.in_proj_bias",), f"{here}/{name}_bias", _third_bias(i)),
        ]
    return [
        *pieces,
        Piece((f"{there}.out_proj.weight",), f"{here}/out_kernel", HEADS_OUT),
        Piece((f"{there}.out_proj.bias",), f"{here}/out_bias", SAME),
    ]


# MAVEN's names of the modalities. In `attn_v2a` the video asks and the audio answers.
_MAVEN_MODALITIES = {"visual": "video", "audio": "audio", "text": "text"}


def maven(config: Any) -> Table:
    """MAVEN's two released networks, as `models.maven_released.MavenReleased` has them.

    Args:
        config: its recipe.
    """
    there, section = "multihead_attention", config.model
    pieces = []
    for m, name in _MAVEN_MODALITIES.items():
        pieces += _pieces(linear(f"{there}.{name}_proj", f"embed/project_{m}"))
        for n, other in _MAVEN_MODALITIES.items():
            if n != m:
                pathway = f"{there}.attn_{name[0]}2{other[0]}"
                pieces += _multihead(pathway, f"fusion/{m}_from_{n}")
    pieces += _pieces(norm(f"{there}.layer_norm", "fusion/norm"))
    if section.variant == "beit":
        pieces += _pieces(linear("projection_layer", "refine"))
        for stack in range(2):
            pieces += _beit_stack(section, f"beit3_encoders.{stack}", f"beit_{stack}")
    # The regressor is a Sequential: a ReLU and a dropout lie between its linear maps.
    layers = [f"hidden_{i}" for i in range(len(section.head_dims))]
    for i, name in enumerate([*layers, "output"]):
        pieces += _pieces(linear(f"regressor.fc.{3 * i}", f"head/{name}"))
    return Table(
        pieces,
        start=tuple(f"embed/missing_{m}" for m in _MAVEN_MODALITIES),
        renames=TABLES["beit"].renames,
    )


def _beit_stack(section: Any, there: str, here: str) -> Iterable[Piece]:
    """The layers of Hugging Face's BEiT, which the release keeps without what is around them."""
    stack = BeitStack(
        num_layers=section.beit_layers,
        num_heads=section.beit_heads,
        mlp_dim=section.beit_mlp_dim,
        layer_scale_init=section.layer_scale_init,
    )
    for entry in entries("beit", stack):
        name = entry.there.removeprefix("encoder.")
        yield Piece((f"{there}.{name}",), f"{here}/{entry.here}", entry.conversion, entry.layer)
