"""Named tensors of a file or folder of weights: safetensors without PyTorch, pickles with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy, and so safetensors, bfloat16)
import numpy as np
from safetensors import SafetensorError, safe_open

from maven_jax.errors import UserError
from maven_jax.inputs import read_json

# In order of preference: safetensors need no PyTorch and cannot carry code.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Where training scripts put a state dict beside other things.
_NESTED_UNDER = ("state_dict", "model", "net", "model_state_dict")


class _Unread:
    """Takes the place of a NumPy number in a pickle, such as a best score, which nobody reads.

    Without it, a checkpoint that has such a number beside its tensors would be refused.
    """

    def __init__(self, *args: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


_NUMPY_NUMBERS: list[Any] = [
    (_Unread, "numpy.dtype"),
    (_Unread, "numpy.core.multiarray.scalar"),
    (_Unread, "numpy._core.multiarray.scalar"),
]


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint, read one at a time.

    Attributes:
        shapes: name -> shape.
        read: name -> the tensor; floating point ones as float32, finite or a UserError.
        sha256: of the file's bytes; of several shards, that of the lines "<name> <sha256>"
            sorted by name.
    """

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    sha256: str


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    """Half precision of either kind, and float64, as float32; others as they are."""
    is_float = np.issubdtype(tensor.dtype, np.floating) or tensor.dtype.name == "bfloat16"
    return tensor.astype(np.float32) if is_float else tensor


def _finite(path: Path, name: str, tensor: np.ndarray) -> np.ndarray:
    """The tensor, if all its numbers are finite; with others every prediction would be NaN."""
    if np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all():
        raise UserError(f"{path}: {name} has values that are not finite: the file is damaged")
    return tensor


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shards(index: Path) -> tuple[dict[str, str], list[Path]]:
    """The index's tensor name -> shard name, and the shards' paths."""
    where = read_json(index, "an index of shards", {"weight_map": {str: str}})["weight_map"]
    if not where:
        raise UserError(f"{index}: has no weight_map")
    for name in where.values():
        # An index is foreign data: it may name files beside it and no others.
        plain = "\\" not in name and name not in ("", ".", "..")
        if not plain or PurePosixPath(name).name != name:
            raise UserError(f"{index}: shard name {name!r} is not that of a file beside it")
    shards = [index.parent / name for name in sorted(set(where.values()))]
    for shard in shards:
        if not shard.is_file():
            raise UserError(f"{shard}: this shard, named in {index.name}, is missing")
    return where, shards


def _read_safetensors(path: Path) -> tuple[dict, Callable[[str], np.ndarray]]:
    try:
        file = safe_open(path, framework="numpy")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: truncated or not a safetensors file ({error})") from None
    return shapes, lambda name: _finite(path, name, _as_float32(file.get_tensor(name)))


def _read_pickle(path: Path) -> tuple[dict, Callable[[str], np.ndarray]]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading it needs PyTorch (pip install torch); model.safetensors does not"
        ) from None
    import pickle
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            with torch.serialization.safe_globals(_NUMPY_NUMBERS):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: refused, it is damaged or holds more than tensors (loading it could run code)"
        ) from None
    except Exception as error:  # damaged pickles end in errors of every kind
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UserError(f"{path}: truncated or not a PyTorch file ({first_line[:200]})") from None
    if isinstance(state, dict):
        state = next((state[k] for k in _NESTED_UNDER if isinstance(state.get(k), dict)), state)
    if not isinstance(state, dict):
        raise UserError(f"{path}: holds a {type(state).__name__}, not named tensors")
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)}

    def read(name: str) -> np.ndarray:
        tensor = tensors[name].detach()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return _finite(path, name, array)

    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, read


def read_file(path: Path) -> Tensors:
    """The tensors of one file, safetensors or a PyTorch pickle; a state dict may be nested in it.

    Raises:
        UserError: it is missing or damaged, holds no named tensors, is a pickle of anything but
            tensors, or PyTorch is needed and not installed.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        with path.open("rb") as file:
            start = file.read(9)
        # Behind the 8 bytes of its length, the header of safetensors is a JSON object.
        is_safe = path.suffix == ".safetensors" or start[8:] == b"{"
        shapes, read = (_read_safetensors if is_safe else _read_pickle)(path)
        sha256 = _sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not shapes:
        raise UserError(f"{path}: holds no tensors")
    return Tensors(shapes, read, sha256)


def read_tensors(folder: Path) -> Tensors:
    """The weights in `folder`, from the first of `WEIGHT_FILES` that exists.

    Raises:
        UserError: there are none, a file is damaged, a shard is missing or outside the folder,
            a pickle holds anything but tensors, or PyTorch is needed and not installed.
    """
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder}: no weights; expected one of {', '.join(WEIGHT_FILES)}")
    read_any = _read_safetensors if "safetensors" in path.name else _read_pickle
    if path.suffix != ".json":
        shapes, read = read_any(path)
        return Tensors(shapes, read, _sha256(path))

    where, shards = _shards(path)
    by_shard = {shard.name: read_any(shard) for shard in shards}
    for name, shard in where.items():
        if name not in by_shard[shard][0]:
            raise UserError(f"{path.parent / shard}: has no tensor {name}, which {path.name} names")
    lines = "".join(f"{shard.name} {_sha256(shard)}\n" for shard in shards)
    return Tensors(
        {name: by_shard[shard][0][name] for name, shard in where.items()},
        lambda name: by_shard[where[name]][1](name),
        hashlib.sha256(lines.encode()).hexdigest(),
    )
