"""Convolutional encoders out of the state dicts that RJCMA's and TSAV's authors published."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.convert.encoder_tables import entries
from maven_jax.convert.loaded import nested, variable_shapes
from maven_jax.convert.native import save_encoder
from maven_jax.convert.tensor_files import Tensors
from maven_jax.encoders.iresnet import IResNetConfig
from maven_jax.encoders.registry import kind_of
from maven_jax.errors import UserError, listing

# Of a message; longer ones are not read.
MOST_LETTERS = 600
# Counts training steps, for averages that inference does not take.
_COUNTER = r".*\.num_batches_tracked"
_STEM = "stem.0.weight"


@dataclass(frozen=True)
class _Part:
    """One encoder of a published file.

    Attributes:
        kind: of the encoder.
        prefix: of its tensors' names.
        folder: where it goes, below the output.
    """

    kind: str
    prefix: str
    folder: str = "."


@dataclass(frozen=True)
class _Published:
    """A published file.

    Attributes:
        parts: the encoders in it.
        heads: regular expression of the names of tensors that belong to a task of its own.
    """

    parts: tuple[_Part, ...]
    heads: str


_PUBLISHED = {
    "iresnet50": _Published((_Part("iresnet50", "backbone."),), r"logits\..*"),
    "vggish": _Published((_Part("vggish", ""),), r"(?!)"),
    "r2plus1d": _Published((_Part("r2plus1d", ""),), r"fc\..*"),
    "tsav": _Published(
        (
            _Part("r2plus1d", "video_model.r2plus1d.", "visual"),
            _Part("audio_resnet18", "audio_model.resnet.", "audio"),
        ),
        r"fc\..*",
    ),
}
ENCODER_FILES = tuple(_PUBLISHED)


@dataclass
class Taken:
    """The part of a state dict that is an encoder.

    Attributes:
        params: parameters; empty if some are missing or misshaped, or nothing was read.
        state: other variables; likewise.
        used: names of the tensors that it is made of.
        left_out: names of tensors under its prefix that inference does not use.
        unknown: names of other tensors under its prefix.
        missing: names of tensors that it needs, with shapes.
        misshaped: names of tensors of another shape, with both.
    """

    params: dict[str, Any]
    state: dict[str, Any]
    used: list[str]
    left_out: list[str]
    unknown: list[str]
    missing: list[str]
    misshaped: list[str]


def take_encoder(
    kind: str,
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    prefix: str = "",
    only_names: bool = False,
) -> Taken:
    """The encoder whose tensors' names start with `prefix`.

    Args:
        kind: one of `encoders.registry.KINDS`.
        config: its sizes.
        tensors: the state dict.
        prefix: with the dot.
        only_names: read no tensor, only compare names and shapes.
    """
    shapes = variable_shapes(kind, config)
    table = list(entries(kind, kind_of(kind).read(config)))
    used, missing, misshaped = [], [], []
    for entry in table:
        name, shape = prefix + entry.source, entry.source_shape(shapes[entry.target].shape)
        if name not in tensors.shapes:
            missing.append(f"{name} {shape}")
            continue
        used.append(name)
        if tensors.shapes[name] != shape:
            misshaped.append(f"{name} has shape {tensors.shapes[name]}, not {shape}")
    others = [n for n in tensors.shapes if n.startswith(prefix) and n not in set(used)]
    left_out = [n for n in others if re.fullmatch(_COUNTER, n)]
    unknown = [n for n in others if not re.fullmatch(_COUNTER, n)]
    flat: dict[str, np.ndarray] = {}
    if not (missing or misshaped or only_names):
        flat = {path: np.zeros(shape.shape, np.float32) for path, shape in shapes.items()}
        for entry in table:
            target = flat[entry.target] if entry.layer is None else flat[entry.target][entry.layer]
            tensor = tensors.read(prefix + entry.source)
            target[...] = entry.conversion.convert(tensor, target.shape)
    params, state = nested(flat)
    return Taken(params, state, used, left_out, unknown, missing, misshaped)


def refuse_problems(
    what: str, *, missing: Sequence[str], misshaped: Sequence[str], unknown: Sequence[str]
) -> None:
    """Raises a UserError that counts missing, misshaped and unknown tensors and names the first."""
    problems = {"missing": missing, "of another shape": misshaped, "unknown": unknown}
    problems = {said: [n[:120] for n in names] for said, names in problems.items() if names}
    for most in (8, 4, 3, 2, 1):
        texts = [f"{len(n)} {said}: {listing(n, most)}" for said, n in problems.items()]
        line = f"{what}: {'; '.join(texts)}"
        if texts and (len(line) <= MOST_LETTERS or most == 1):
            raise UserError(line)


def convert_encoder(
    name: str, tensors: Tensors, out: Path, *, source: str, num_channels: int = 3
) -> list[str]:
    """Writes the encoders of a published file as folders that `load_encoder` opens.

    Args:
        name: one of `ENCODER_FILES`.
        tensors: what the file holds.
        out: the encoder's folder; of `tsav` the folder of `visual` and `audio`.
        source: the file, for messages and records.
        num_channels: of `tsav`'s clips: 3 drops the weights of the mask that TSAV shows as a
            fourth channel, as RJCA does; 4 keeps them.

    Returns:
        Lines that say what was written and what was left out.

    Raises:
        UserError: the name is unknown, a tensor is missing, unknown or misshaped, or a folder
            holds an encoder already.
    """
    if name not in _PUBLISHED:
        raise UserError(f"no encoder file {name!r}; expected one of {', '.join(ENCODER_FILES)}")
    published = _PUBLISHED[name]
    if name == "iresnet50":
        published, sizes = _face_form(published, tensors.shapes)
    else:
        sizes = {}
    taken: list[tuple[_Part, dict[str, Any], Taken]] = []
    notes = []
    for part in published.parts:
        config = dict(sizes)
        if part.kind == "r2plus1d":
            config["num_channels"] = num_channels
            tensors, note = _without_mask(tensors, part.prefix + _STEM, num_channels)
            notes += note
        names = take_encoder(part.kind, config, tensors, prefix=part.prefix, only_names=True)
        taken.append((part, config, names))

    inside = {n for _, _, t in taken for n in (*t.used, *t.left_out, *t.unknown)}
    outside = [n for n in tensors.shapes if n not in inside]
    heads = [n for n in tensors.shapes if re.fullmatch(published.heads, n)]
    unknown = [n for _, _, t in taken for n in t.unknown] + outside
    missing = [n for _, _, t in taken for n in t.missing]
    if len(missing) == sum(len(t.missing) + len(t.used) for _, _, t in taken):
        has = listing([n[:80] for n in tensors.shapes], 3) or "nothing"
        raise UserError(f"{source}: holds none of the tensors of {name}; it has {has}")
    refuse_problems(
        f"{source}: no {name}",
        missing=missing,
        misshaped=[n for _, _, t in taken for n in t.misshaped],
        unknown=[n for n in unknown if n not in set(heads)],
    )
    lines = []
    for part, config, _ in taken:
        folder = out / part.folder
        t = take_encoder(part.kind, config, tensors, prefix=part.prefix)
        save_encoder(
            folder, part.kind, config, t.params, t.state, source=source, sha256=tensors.sha256
        )
        lines.append(f"{folder}: {part.kind} from {len(t.used)} tensors")
        if "image_size" in sizes:
            side = sizes["image_size"]
            lines.append(
                f"it takes faces of {side} x {side}: "
                f"--encoders.visual.resize={side} --encoders.visual.crop={side}"
            )
    counters = sum(len(t.left_out) for _, _, t in taken)
    if counters:
        notes.append(f"left out: {counters} num_batches_tracked, which only training uses")
    if heads:
        notes.append(f"left out: {', '.join(heads)}, a head for another task")
    return lines + notes


def _face_form(
    published: _Published, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[_Published, dict[str, Any]]:
    """An IR network's prefix, and its sizes where they are not those of RJCMA's.

    face.evoLVe's and InsightFace's files are for faces of 112 x 112 of which every stage halves the
    side; their outputs have any length. InsightFace's classifier lies in another file.
    """
    prefix = published.parts[0].prefix
    sizes: dict[str, Any] = {}
    if any(name.startswith(prefix) for name in shapes):
        inner = prefix
    else:
        inner, sizes["normalize"] = "", False
    insightface = f"{inner}layer1.0.prelu.weight" in shapes
    embedding = f"{inner}{'fc' if insightface else 'output_layer.3'}.weight"
    if insightface:
        sizes["insightface"] = True
        units = [{m[1] for n in shapes if (m := re.match(rf"layer{stage}\.(\d+)\.", n))}
                 for stage in range(1, 5)]  # fmt: skip
        sizes["depths"] = tuple(max(len(numbers), 1) for numbers in units)
    else:
        widths = [shapes.get(f"{inner}body.{i}.res_layer.3.weight", (0,))[0] for i in range(200)]
        depths = tuple(widths.count(width) for width in IResNetConfig.widths)
        if all(depths) and depths != IResNetConfig.depths:
            sizes["depths"] = depths
    grid = IResNetConfig().grid_size ** 2 * IResNetConfig.widths[-1]
    if len(shape := shapes.get(embedding, ())) == 2 and shape[1] != grid:
        sizes |= {"image_size": 112, "strides": (2, 2, 2, 2)}
    part = dataclasses.replace(published.parts[0], prefix=inner)
    return dataclasses.replace(published, parts=(part,)), sizes


def _without_mask(tensors: Tensors, stem: str, num_channels: int) -> tuple[Tensors, list[str]]:
    """Tensors whose first convolution has lost the input channels behind `num_channels`."""
    shape = tensors.shapes.get(stem, ())
    if not (len(shape) == 5 and shape[1] == 4 and num_channels == 3):
        return tensors, []
    read = tensors.read
    cut = dataclasses.replace(
        tensors,
        shapes={**tensors.shapes, stem: (shape[0], num_channels, *shape[2:])},
        read=lambda name: read(name)[:, :num_channels] if name == stem else read(name),
    )
    return cut, [f"left out: the mask's channel of {stem}, which RJCA drops too"]
