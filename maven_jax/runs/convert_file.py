"""A file of released PyTorch weights made into a folder that the other commands open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maven_jax.convert.backbones import convert_encoder
from maven_jax.convert.efficientnet import TENSORFLOW
from maven_jax.convert.huggingface import load_encoder
from maven_jax.convert.native import RECORD_FILE, save_encoder
from maven_jax.convert.tensor_files import Tensors, read_file
from maven_jax.errors import UserError, did_you_mean, listing
from maven_jax.files import whole_folder
from maven_jax.inputs import read_json
from maven_jax.progress import say
from maven_jax.runs.released import NETWORKS, convert_network
from maven_jax.runs.workdir import CONFIG_FILE

# Encoders by themselves: what they are, and the kinds of encoders in their file.
ENCODERS = {
    "tsav": (
        "TSAV's two streams, RJCA's encoders: OUT/visual and OUT/audio",
        ("r2plus1d", "audio_resnet18"),
    ),
    "iresnet50": ("RJCMA's visual encoder", ("iresnet50",)),
    "vggish": ("RJCMA's audio encoder", ("vggish",)),
    "efficientnet": ("an EfficientNet of timm's; .pt, .safetensors or .onnx", ("efficientnet",)),
    "emotieffnet": ("EmotiEffNet (HSEmotion) for faces; .pt or .onnx", ("efficientnet",)),
}
# EfficientNets: what a state dict does not tell.
_EFFICIENTNETS = {"efficientnet": {}, "emotieffnet": TENSORFLOW}
# How names of tensors begin in a model's file; the first that fits tells the model.
_SIGNS = {
    "maven-beit": "beit3_encoders.",
    "maven-mlp": "multihead_attention.",
    "rjca": "audio_extract.",
    "rjcma": "temporal.",
    "tsav": "video_model.",
    "iresnet50": "backbone.body.",
    "vggish": "embeddings.",
}
# The prefix of torch's DataParallel.
_WRAPPER = "module."


def models() -> dict[str, str]:
    """The models that can be converted: name -> what it is."""
    networks = {name: network.about for name, network in NETWORKS.items()}
    return networks | {name: about for name, (about, _) in ENCODERS.items()}


def recognise(tensors: Tensors) -> str | None:
    """The model whose tensors have these names; None for an unknown one."""
    for model, sign in _SIGNS.items():
        if any(name.startswith(sign) for name in tensors.shapes):
            return model
    return None


def without_wrapper(tensors: Tensors) -> Tensors:
    """The tensors without the prefix that training on several devices puts before every name."""
    if not all(name.startswith(_WRAPPER) for name in tensors.shapes):
        return tensors
    shapes = {name.removeprefix(_WRAPPER): shape for name, shape in tensors.shapes.items()}
    return Tensors(shapes, lambda name: tensors.read(_WRAPPER + name), tensors.sha256)


def convert(
    model: str,
    file: Path,
    out: Path,
    *,
    dimension: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Converts a file; `out` appears whole or not at all.

    A folder that holds the same conversion of the same file is left as it is.

    Args:
        model: one of `models()`.
        file: a PyTorch file or safetensors.
        out: folder to write; it must be empty or absent.
        dimension: valence or arousal, for networks that predict one.
        overrides: changes of a network's recipe, `--config.section.key=value`.

    Raises:
        UserError: an unknown model, an unsafe, damaged or unfitting file, or a folder that holds
            something else.
    """
    if model not in models():
        raise UserError(
            f"--model {model}: there is no such model{did_you_mean(model, list(models()))}"
        )
    if dimension and not (model in NETWORKS and NETWORKS[model].one_dimension):
        raise UserError(f"--dimension {dimension}: {model} does not predict one dimension alone")
    if overrides and model not in NETWORKS:
        raise UserError(f"unknown argument {overrides[0]!r}: {model} has no recipe")
    say(f"reading {file}")
    if model in _EFFICIENTNETS:
        _convert_efficientnet(model, file, out)
        return
    tensors = without_wrapper(read_file(file))
    say(f"{len(tensors.shapes)} tensors, sha256 {tensors.sha256}")
    recognised = recognise(tensors)
    if recognised not in (None, model):
        raise UserError(
            f"{file}: these are the weights of {recognised}, not of {model}"
            f"; did you mean --model {recognised}?"
        )
    if _is_same(model, tensors.sha256, out, dimension, overrides):
        say(f"{out} holds this conversion already; nothing to do")
        return
    with whole_folder(out) as folder:
        if model in NETWORKS:
            lines = convert_network(
                model, file, tensors, folder, dimension=dimension, overrides=overrides
            )
        else:
            lines = convert_encoder(model, tensors, folder, source=file.name)
    for line in lines:
        say(line.replace(str(folder), str(out)))
    if model in NETWORKS:
        say(f"written: {out}; next: maven-jax evaluate --workdir {out} --store STORE")
    else:
        say(f"written: {out}; it can be the `source` of an encoder in a recipe of `prepare`")


def _convert_efficientnet(model: str, file: Path, out: Path) -> None:
    encoder = load_encoder(file, kind="efficientnet", sizes=_EFFICIENTNETS[model])
    say(f"sha256 {encoder.sha256}")
    if _is_same(model, encoder.sha256, out, None, ()):
        say(f"{out} holds this conversion already; nothing to do")
        return
    with whole_folder(out) as folder:
        save_encoder(
            folder,
            encoder.kind,
            encoder.config,
            encoder.params,
            encoder.state,
            source=file.name,
            sha256=encoder.sha256,
        )
    if encoder.unused:
        say(
            f"left out: {listing(encoder.unused)}, what its head is made of; the file itself has it"
        )
    say(f"written: {out}; it can be the `source` of an encoder in a recipe of `prepare`")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, "a record")
    except UserError:
        return {}


def _is_same(
    model: str, sha256: str, out: Path, dimension: str | None, overrides: Sequence[str]
) -> bool:
    """Whether `out` holds the same conversion of the same file."""
    if model in NETWORKS:
        record = _read_record(out / CONFIG_FILE)
        made = record.get("converted") or {}
        config = NETWORKS[model].config(dimension, overrides)
        return (made.get("model"), made.get("sha256")) == (model, sha256) and record.get(
            "config"
        ) == json.loads(config.to_json_best_effort())
    folders = (out, out / "visual", out / "audio")
    records = [r for r in (_read_record(folder / RECORD_FILE) for folder in folders) if r]
    kinds = sorted(str(record.get("kind")) for record in records)
    hashes = {record.get("sha256") for record in records}
    return kinds == sorted(ENCODERS[model][1]) and hashes == {sha256}
