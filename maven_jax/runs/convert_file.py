"""A file of released PyTorch weights made into a folder that the other commands open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
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
    "r2plus1d": ("R(2+1)D-18 as torchvision trained it on Kinetics-400", ("r2plus1d",)),
    "iresnet50": (
        "RJCMA's visual encoder, or an IR network of face.evoLVe or InsightFace",
        ("iresnet50",),
    ),
    "vggish": ("RJCMA's audio encoder", ("vggish",)),
    "efficientnet": ("an EfficientNet of timm's; .pt, .safetensors or .onnx", ("efficientnet",)),
    "emotieffnet": ("EmotiEffNet (HSEmotion) for faces; .pt or .onnx", ("efficientnet",)),
}
# EfficientNets: what a state dict does not tell.
_EFFICIENTNETS = {"efficientnet": {}, "emotieffnet": TENSORFLOW}
# How names of tensors begin in a model's file; the first that fits tells the model.
_SIGNS = (
    ("maven-beit", "beit3_encoders."),
    ("maven-mlp", "multihead_attention."),
    ("rjca", "audio_extract."),
    ("rjcma", "temporal."),
    ("tsav", "video_model."),
    ("iresnet50", "backbone.body."),
    ("iresnet50", "body.0.res_layer."),
    ("iresnet50", "layer1.0.prelu."),
    ("r2plus1d", "layer1.0.conv1.0.3."),
    ("vggish", "embeddings."),
)
# Modules around a model, whose names stand before those of its tensors: torch's own that train on
# several devices or compile, then what people call the model in theirs.
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
_OUTER = (*_WRAPPERS, "model.", "net.", "network.", "encoder.", "backbone.", "student.", "ema.")
_MOST_OUTER = 3
# Networks whose tensors go by the names of another.
_SAME_NAMES = {"grjca": "rjcma", "hgrjca": "rjcma"}


def models() -> dict[str, str]:
    """The models that can be converted: name -> what it is."""
    networks = {name: network.about for name, network in NETWORKS.items()}
    return networks | {name: about for name, (about, _) in ENCODERS.items()}


def recognise(names: Iterable[str]) -> str | None:
    """The model whose tensors have these names; None for an unknown one."""
    names = tuple(names)
    for model, sign in _SIGNS:
        if any(name.startswith(sign) for name in names):
            return model
    return None


def without_wrapper(tensors: Tensors) -> Tensors:
    """The tensors of a model that lies in another, under the model's own names.

    Tensors beside it, of a loss or a metric, are left out with a note.
    """
    names = tuple(tensors.shapes)
    prefix = ""
    for outer in _outer_names(names):
        if recognise(n.removeprefix(outer) for n in names if n.startswith(outer)):
            prefix = outer
            break
    else:  # nothing known: only what is never part of a model's names
        while any(all(n.startswith(prefix + w) for n in names) for w in _WRAPPERS):
            prefix += next(w for w in _WRAPPERS if names[0].startswith(prefix + w))
    inside = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
    beside = [n[:60] for n in names if not n.startswith(prefix)]
    note = f"left out: {len(beside)} tensors beside {prefix}: {listing(beside, 3)}"
    return Tensors(
        {name: tensors.shapes[n] for name, n in inside.items()},
        lambda name: tensors.read(inside[name]),
        tensors.sha256,
        (*tensors.notes, note) if beside else tensors.notes,
    )


def _outer_names(names: Sequence[str]) -> Iterator[str]:
    """The prefixes that some names have, shorter ones first, "" among them."""
    prefixes = [""]
    for _ in range(_MOST_OUTER + 1):
        yield from prefixes
        longer = [p + outer for p in prefixes for outer in _OUTER]
        prefixes = [p for p in longer if any(n.startswith(p) for n in names)]


def convert(
    model: str,
    file: Path,
    out: Path,
    *,
    key: str | None = None,
    dimension: str | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Converts a file; `out` appears whole or not at all.

    A folder that holds the same conversion of the same file is left as it is.

    Args:
        model: one of `models()`.
        file: see `read_file`.
        out: folder to write; it must be empty or absent.
        key: where in a PyTorch file the state dict lies, `outer.inner`.
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
        if key:
            raise UserError(f"--key {key}: {model} takes the state dict or the module of the file")
        _convert_efficientnet(model, file, out)
        return
    tensors = without_wrapper(read_file(file, key))
    say(f"{len(tensors.shapes)} tensors, sha256 {tensors.sha256}")
    for note in tensors.notes:
        say(note)
    recognised = recognise(tensors.shapes)
    if recognised not in (None, _SAME_NAMES.get(model, model)):
        raise UserError(
            f"{file}: these are the weights of {recognised}, not of {model}"
            f"; did you mean --model {recognised}?"
        )
    source = f"{file.name}[{key}]" if key else file.name
    if _is_same(model, tensors.sha256, source, out, dimension, overrides):
        say(f"{out} holds this conversion already; nothing to do")
        return
    with whole_folder(out) as folder:
        if model in NETWORKS:
            lines = convert_network(
                model,
                file,
                tensors,
                folder,
                source=source,
                dimension=dimension,
                overrides=overrides,
            )
        else:
            lines = convert_encoder(model, tensors, folder, source=source)
    for line in lines:
        say(line.replace(str(folder), str(out)))
    if model in NETWORKS:
        say(f"written: {out}; next: maven-jax evaluate --workdir {out} --store STORE")
    else:
        say(f"written: {out}; it can be the `source` of an encoder in a recipe of `prepare`")


def _convert_efficientnet(model: str, file: Path, out: Path) -> None:
    encoder = load_encoder(file, kind="efficientnet", sizes=_EFFICIENTNETS[model])
    say(f"sha256 {encoder.sha256}")
    if _is_same(model, encoder.sha256, file.name, out, None, ()):
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
    model: str,
    sha256: str,
    source: str,
    out: Path,
    dimension: str | None,
    overrides: Sequence[str],
) -> bool:
    """Whether `out` holds the same conversion of the same file."""
    if model in NETWORKS:
        record = _read_record(out / CONFIG_FILE)
        made = record.get("converted") or {}
        config = NETWORKS[model].config(dimension, overrides)
        same = (made.get("model"), made.get("sha256")) == (model, sha256)
        return (
            same
            and _key_of(made.get("file")) == _key_of(source)
            and record.get("config") == json.loads(config.to_json_best_effort())
        )
    folders = (out, out / "visual", out / "audio")
    records = [r for r in (_read_record(folder / RECORD_FILE) for folder in folders) if r]
    kinds = sorted(str(record.get("kind")) for record in records)
    hashes = {record.get("sha256") for record in records}
    keys = {_key_of(record.get("source")) for record in records}
    same = hashes == {sha256} and keys == {_key_of(source)}
    return same and kinds == sorted(ENCODERS[model][1])


def _key_of(source: object) -> str:
    """The `[key]` of what a record names as its source; the file may have got another name."""
    return str(source)[str(source).rfind("[") :] if str(source).endswith("]") else ""
