"""Which tensors of a released network become which of our variables, and how.

The names are those of the code released with MAVEN (CVPRW 2025), RJCA (Praveen et al., 2023) and
RJCMA (ABAW6, 2024). Paths are those of `conversions.Line`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from maven_jax.convert.conversions import (
    CONV_1D,
    HEADS_OUT,
    LINEAR,
    SAME,
    Conversion,
    Line,
    Shape,
    batch_norm,
    linear,
    norm,
)
from maven_jax.convert.encoder_tables import TABLES, entries
from maven_jax.encoders.beit import BeitStack


@dataclass(frozen=True)
class Piece:
    """One of our variables, or one layer of it, and the tensors that it is made of.

    Attributes:
        sources: names of tensors; several are added up, as the two biases of a PyTorch LSTM are.
        target: path of the variable.
        conversion: how they become ours.
        layer: its place on the variable's leading axis, None if it is the whole.
    """

    sources: tuple[str, ...]
    target: str
    conversion: Conversion
    layer: int | None = None

    def target_shape(self, variable: Shape) -> Shape:
        return variable if self.layer is None else variable[1:]

    def source_shape(self, variable: Shape) -> Shape:
        return self.conversion.source_shape(self.target_shape(variable))


@dataclass(frozen=True)
class Table:
    """All tensors of a released network.

    Attributes:
        pieces: those that become ours; they fill every variable that is not in `start`.
        left_out: tensors that nobody reads -> why; they may be absent.
        duplicates: (name, its other name): two names of one tensor, whose values must agree.
        start: our variables that the release lacks; they start at zero.
        renames: (regular expression, replacement) of other names that the tensors go by.
    """

    pieces: list[Piece]
    left_out: dict[str, str] = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    start: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def names(self) -> set[str]:
        """Every name that the state dict may have."""
        names = {name for piece in self.pieces for name in piece.sources}
        return names | {b for _, b in self.duplicates} | set(self.left_out)

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
    return [Piece((source,), target, conversion) for source, target, conversion in lines]


def multihead(source: str, target: str) -> list[Piece]:
    """`torch.nn.MultiheadAttention` into `MultiHeadAttention`."""
    pieces = []
    for i, name in enumerate(("query", "key", "value")):
        pieces += [
            Piece((f"{source}.in_proj_weight",), f"{target}/{name}_kernel", _third(i)),
            Piece((f"{source}.in_proj_bias",), f"{target}/{name}_bias", _third_bias(i)),
        ]
    return [
        *pieces,
        Piece((f"{source}.out_proj.weight",), f"{target}/out_kernel", HEADS_OUT),
        Piece((f"{source}.out_proj.bias",), f"{target}/out_bias", SAME),
    ]


# MAVEN's names of the modalities. In `attn_v2a` the video asks and the audio answers.
_MAVEN_MODALITIES = {"visual": "video", "audio": "audio", "text": "text"}


def maven(config: Any) -> Table:
    """MAVEN's two released networks, as `models.maven_released.MavenReleased` has them.

    Args:
        config: its recipe.
    """
    source, section = "multihead_attention", config.model
    pieces = []
    for m, name in _MAVEN_MODALITIES.items():
        pieces += _pieces(linear(f"{source}.{name}_proj", f"embed/project_{m}"))
        for n, other in _MAVEN_MODALITIES.items():
            if n != m:
                pathway = f"{source}.attn_{name[0]}2{other[0]}"
                pieces += multihead(pathway, f"fusion/{m}_from_{n}")
    pieces += _pieces(norm(f"{source}.layer_norm", "fusion/norm"))
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


def _beit_stack(section: Any, source: str, target: str) -> Iterable[Piece]:
    """The layers of Hugging Face's BEiT, which the release keeps without what is around them."""
    stack = BeitStack(
        num_layers=section.beit_layers,
        num_heads=section.beit_heads,
        mlp_dim=section.beit_mlp_dim,
        layer_scale_init=section.layer_scale_init,
    )
    for entry in entries("beit", stack):
        name = entry.source.removeprefix("encoder.")
        yield Piece(
            (f"{source}.{name}",), f"{target}/{entry.target}", entry.conversion, entry.layer
        )


# Rows of h0 of each layer and direction, then those of c0, into (2, layers, directions, h).
_INITIAL_STATE = Conversion(lambda s: (s[0] * s[1] * s[2], s[3]), lambda x, s: x.reshape(s))


def _residual_blstm(source: str, target: str, layers: int) -> list[Piece]:
    """RJCA's LSTM module into `ResidualBlstm`."""
    pieces = [Piece((f"{source}.init_hidden",), f"{target}/blstm/initial_state", _INITIAL_STATE)]
    for layer in range(layers):
        for suffix, direction in (("", "forward"), ("_reverse", "backward")):
            end, lstm = f"l{layer}{suffix}", f"{target}/blstm/layer_{layer}_{direction}"
            biases = (f"{source}.rnn.bias_ih_{end}", f"{source}.rnn.bias_hh_{end}")
            pieces += [
                Piece((f"{source}.rnn.weight_ih_{end}",), f"{lstm}/input/kernel", LINEAR),
                Piece((f"{source}.rnn.weight_hh_{end}",), f"{lstm}/recurrent", LINEAR),
                Piece(biases, f"{lstm}/input/bias", SAME),
            ]
    return pieces + _pieces(linear(f"{source}.linear", f"{target}/output"))


def _recursion(modalities: Iterable[str], steps: int, query: bool) -> list[Piece]:
    """The layers of dense co-attention into the steps of `Recursion`."""
    target, pieces = "recursion/step", []
    for step in range(steps):
        source = f"coattn.dcn_layers.{step}"
        lines = linear(f"{source}.dense_coattn.query_linear", f"{target}/query") if query else []
        for i, m in enumerate(modalities):
            lines += linear(f"{source}.dense_coattn.key{i + 1}_linear", f"{target}/{m}_key")
            lines += linear(f"{source}.dense_coattn.value{i + 1}_linear", f"{target}/{m}_value")
            lines += linear(f"{source}.linears.{i}.0", f"{target}/{m}_output")
        pieces += [Piece((name,), path, conversion, step) for name, path, conversion in lines]
    return pieces


def rjca(config: Any) -> Table:
    """RJCA's released network as `models.rjca.Rjca` has it.

    Args:
        config: its recipe.
    """
    section, attention = config.model, "video_attn.attn"
    lines = [
        *linear(f"{attention}.affine_audio", "pool/guide"),
        *linear(f"{attention}.affine_video", "pool/map"),
        *linear(f"{attention}.affine_v", "pool/map_content", bias=False),
        *linear(f"{attention}.affine_g", "pool/guide_content", bias=False),
        *linear(f"{attention}.affine_h", "pool/score", bias=False),
        *linear(f"{attention}.affine_feat", "pool/output"),
    ]
    for dimension in ("valence", "arousal"):
        lines += linear(f"{dimension[0]}regressor.0", f"head/{dimension}_hidden_0")
        lines += linear(f"{dimension[0]}regressor.3", f"head/{dimension}_output")
    return Table(
        [
            *_residual_blstm("audio_extract", "unimodal_audio", section.lstm_layers),
            *_residual_blstm("video_extract", "unimodal_visual", section.lstm_layers),
            *_residual_blstm("Joint", "joint", section.lstm_layers),
            *_recursion(("visual", "audio"), section.num_steps, query=True),
            *_pieces(lines),
        ]
    )


# Widths of the features: IR-50, VGGish, BERT.
RJCMA_WIDTHS = {"visual": 512, "audio": 128, "text": 768}
_RJCMA_MODALITIES = {"visual": "video", "audio": "logmel", "text": "bert"}
_GAIN = Conversion(lambda s: (s[0], 1, 1), lambda x, s: x.reshape(s))
_CONV_OF_ONE = Conversion(lambda s: (s[1], s[0], 1), lambda x, s: x[..., 0].T)


def _weight_normed(source: str, target: str) -> list[Line]:
    return [
        (f"{source}.weight_v", f"{target}/kernel", CONV_1D),
        (f"{source}.weight_g", f"{target}/scale", _GAIN),
        (f"{source}.bias", f"{target}/bias", SAME),
    ]


def rjcma(config: Any) -> Table:
    """RJCMA's released network as `models.rjcma.Rjcma` has it, without its encoders.

    Args:
        config: its recipe.
    """
    table = _recursive(config, _RJCMA_MODALITIES, query=False)
    for step in range(config.model.num_steps):
        for kind in ("weight", "bias"):
            table.left_out[f"coattn.dcn_layers.{step}.dense_coattn.query_linear.{kind}"] = (
                "a joint layer that the released network computes and does not use (query_linear)"
            )
    return table


def grjca(config: Any) -> Table:
    """GRJCA's network, or HGRJCA's, of face and voice as `models` has them.

    Their gates go by names of ours, `gate_visual` and so on: see `gate_names`.

    Args:
        config: its recipe.
    """
    names = {m: _RJCMA_MODALITIES[m] for m in ("visual", "audio")}
    table, lines = _recursive(config, names, query=True), []
    for m in names:
        if config.model.name == "hgrjca":
            for i in range(1, config.model.num_steps + 1):
                lines += linear(f"stage_{i}_{m}", f"gate/stage_{i}_{m}")
        lines += linear(f"gate_{m}", f"gate/gate_{m}")
    return replace(table, pieces=table.pieces + _pieces(lines))


def gate_names(
    table: Table, tensors: Mapping[str, Shape], variables: Mapping[str, Shape]
) -> dict[str, str]:
    """The table's name of each gate's tensor -> the file's: told by shapes, and by their order.

    The layers of GRJCA's gates have a shape of their own for every modality and number of choices;
    of those alike, the gates of stages come before the last one, as they run.

    Args:
        table: of GRJCA or HGRJCA.
        tensors: name -> shape of the file's, in its order, but for those with names in the table.
        variables: path -> shape of ours.
    """
    found: dict[str, str] = {}
    for piece in table.pieces:
        name = piece.sources[0]
        if not (piece.target.startswith("gate/") and name.endswith(".weight")):
            continue
        shape = piece.source_shape(variables[piece.target])
        fits = [n for n, s in tensors.items() if s == shape and n not in found.values()]
        bias = fits[0].removesuffix("weight") + "bias" if fits else ""
        if bias in tensors:
            found[name] = fits[0]
            found[name.removesuffix("weight") + "bias"] = bias
    return found


def _recursive(config: Any, modalities: Mapping[str, str], query: bool) -> Table:
    """What RJCMA and its relatives share: temporal models, recursion and head."""
    section = config.model
    lines, duplicates = [], []
    for m, name in modalities.items():
        widths = section.channels[m]
        for level, width in enumerate(widths):
            source, target = f"temporal.{name}.network.{level}", f"temporal_{m}/tcn/level_{level}"
            for conv, place in ((1, 0), (2, 4)):
                normed = _weight_normed(f"{source}.conv{conv}", f"{target}_conv_{conv}")
                lines += normed
                # The level's Sequential holds the same convolutions once more.
                duplicates += [
                    (line[0], line[0].replace(f".conv{conv}.", f".net.{place}.")) for line in normed
                ]
            if width != ((RJCMA_WIDTHS[m], *widths)[level]):
                lines += linear(f"{source}.downsample", f"{target}_residual", _CONV_OF_ONE)
        lines += batch_norm(f"bn.{name}", f"norm_{m}")
    lines += linear("regressor1", "head/hidden")
    lines += batch_norm("bn1", "head/norm")
    lines += linear("regressor2", "head/output")
    left_out = dict.fromkeys(
        [f"bn.{name}.num_batches_tracked" for name in modalities.values()]
        + ["bn1.num_batches_tracked"],
        "which only training uses (num_batches_tracked)",
    )
    for kind in ("weight", "bias"):
        left_out[f"spatial.visual.logits.{kind}"] = "a head for another task (logits)"
    return Table(
        _pieces(lines) + _recursion(modalities, section.num_steps, query),
        left_out=left_out,
        duplicates=duplicates,
        renames=(
            (r"\.parametrizations\.weight\.original0$", ".weight_g"),
            (r"\.parametrizations\.weight\.original1$", ".weight_v"),
        ),
    )
