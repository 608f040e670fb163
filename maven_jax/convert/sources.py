"""Where an encoder lies and what it is: folders of Hugging Face and timm, files, the hub.

Nothing here reads whole weights before they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maven_jax.convert import efficientnet, hub, keras_file, native
from maven_jax.convert.tensor_files import WEIGHT_FILES, Tensors, read_file, read_tensors
from maven_jax.encoders.registry import KINDS
from maven_jax.errors import UserError
from maven_jax.inputs import read_json

CONFIG_FILE = "config.json"
# Kinds whose weights come as files of tensors, without a config.
FILE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".onnx", ".safetensors", *keras_file.SUFFIXES)
FILE_KINDS = ("efficientnet", "iresnet50", "vggish", "r2plus1d", "audio_resnet18", "mini_xception")


@dataclass(frozen=True)
class Found:
    """An encoder that was found.

    Attributes:
        kind: of the encoder.
        config: its sizes.
        where: folder or file, for messages.
        read: its tensors.
        about: the whole config file; it may name what the head says.
        folder: with the files of processor and tokenizer, if there may be some.
        revision: the hub's commit.
    """

    kind: str
    config: dict[str, Any]
    where: Path
    read: Callable[[], Tensors]
    about: Mapping[str, Any]
    folder: Path | None = None
    revision: str | None = None


def find_folder(path: Path) -> Path:
    """The folder of an encoder that is given by its weights or its config; else the path itself."""
    names = (*WEIGHT_FILES, CONFIG_FILE)
    beside = path.name in names and (path.parent / CONFIG_FILE).is_file()
    return path.parent if path.is_file() and (beside or path.name == native.RECORD_FILE) else path


def check_kind(path: Path, kind: str) -> None:
    """Looks whether a folder or file may hold an encoder of that kind; reads no weights.

    Raises:
        UserError: it holds another one, or none.
    """
    path = find_folder(path)
    if path.is_file():
        _check_file(path, kind)
    elif native.is_encoder_folder(path):
        native.read_record(path, kind)
    else:
        read_config(path, kind)
        if not any((path / name).is_file() for name in WEIGHT_FILES):
            raise UserError(f"{path}: no weights; expected one of {', '.join(WEIGHT_FILES)}")


def find(source: str | Path, kind: str | None, sizes: Mapping[str, Any]) -> Found:
    """An encoder in a folder that is not our own, a file, or on the hub.

    Args:
        source: folder, file or hub id.
        kind: what it must be; None takes what the folder says.
        sizes: what a file does not tell.

    Raises:
        UserError: it cannot be found, or is of another kind.
    """
    path, revision = find_folder(Path(source).expanduser()), None
    if path.is_file():
        return _find_file(path, kind, sizes)
    if not path.is_dir():
        path, revision = hub.download(str(source))
    kind, config = read_config(path, kind)
    told = efficientnet.of_architecture(config.get("architecture"))
    if told is None:
        return Found(kind, config, path, lambda: read_tensors(path), config, path, revision)
    tensors = read_tensors(path)
    try:
        own = {**sizes, **efficientnet.config_of(tensors.shapes), **told}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Found(kind, own, path, lambda: tensors, config, path, revision)


def read_config(folder: Path, kind: str | None) -> tuple[str, dict[str, Any]]:
    """The kind of the encoder in a folder, `kind` if that is not None, and its config.json."""
    path = folder / CONFIG_FILE
    config = read_json(path, "the config of an encoder")
    key, is_kind = "model_type", config.get("model_type")
    published = [name for name, kind in KINDS.items() if kind.published]
    if is_kind is None and "architecture" in config:
        key, is_kind = "architecture", config["architecture"]
        published = ["efficientnet_b0 to efficientnet_b7", "tf_efficientnet_b0 to b7"]
        if efficientnet.of_architecture(is_kind) is not None:
            is_kind, published = "efficientnet", ["efficientnet"]
    if kind is not None and is_kind != kind:
        other = f"; the kind to take is {is_kind}" if is_kind in published else ""
        raise UserError(f"{path}: {key} is {is_kind!r}, not {kind!r}{other}")
    if is_kind not in published:
        raise UserError(f"{path}: {key} {is_kind!r} is not one of {', '.join(published)}")
    return is_kind, config


def _check_file(path: Path, kind: str | None) -> str:
    if kind not in FILE_KINDS:
        raise UserError(
            f"{path}: a file; {kind or 'an encoder'} is read from a folder with {CONFIG_FILE} and "
            f"weights, and only {', '.join(FILE_KINDS)} from files of tensors"
        )
    return kind


def _find_file(path: Path, kind: str | None, sizes: Mapping[str, Any]) -> Found:
    kind = _check_file(path, kind)
    if kind == "efficientnet":
        file = efficientnet.read_efficientnet(path)
        return Found(kind, {**sizes, **file.config}, path, lambda: file.tensors, {})
    is_keras = path.suffix in keras_file.SUFFIXES
    tensors = keras_file.read_keras(path) if is_keras else read_file(path)
    config = dict(sizes)
    if kind == "r2plus1d":
        # TSAV's has a fourth channel.
        for name, shape in tensors.shapes.items():
            if name.endswith("stem.0.weight") and len(shape) == 5:
                config["num_channels"] = shape[1]
    return Found(kind, config, path, lambda: tensors, {})
