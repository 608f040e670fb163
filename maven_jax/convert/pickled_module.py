"""The tensors of a whole pickled PyTorch module, such as EmotiEffNet's: nothing of it is run.

A pickle names classes and functions to call. Here every name stands for an empty class of ours, but
for those by which PyTorch puts tensors together, which have counterparts of ours. So no code that
the file names is imported, let alone called.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.convert.tensor_files import Tensors
from maven_jax.errors import UserError

_DTYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_MOST_DEPTH = 32


class Inert:
    """Stands for an object of any class; remembers what the pickle says of its state."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any):
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Takes nothing: the pickle of a list of another class."""

    def extend(self, values: Any) -> None:
        """Takes nothing."""


@dataclass(frozen=True)
class _Stored:
    """A tensor as the pickle describes it."""

    storage: tuple[str, str]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    whole = all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides))
    if not whole or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor of no shape")
    return _Stored(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *rest: Any) -> Any:
    return tensor


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuild_tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return _rebuild_parameter
        return type(name.rpartition(".")[2], (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, type):
            raise pickle.UnpicklingError("a reference to something else than tensors")
        return dtype.__name__, str(key)


@dataclass(frozen=True)
class PickledModule:
    """Tensors under the names of a state dict, and the submodules' classes and plain settings.

    Attributes:
        tensors: of the module and those within it, or of a plain state dict.
        modules: name of a submodule -> (class, its attributes).
    """

    tensors: Tensors
    modules: Mapping[str, tuple[str, Mapping[str, Any]]]


def _walk(
    value: Any, name: str, found: dict[str, _Stored], modules: dict[str, Any], depth: int = 0
) -> None:
    if depth > _MOST_DEPTH:
        raise pickle.UnpicklingError("modules within modules without end")
    if isinstance(value, _Stored):
        found[name] = value
    elif isinstance(value, dict):
        for key, inner in value.items():
            _walk(inner, f"{name}.{key}" if name else str(key), found, modules, depth + 1)
    elif isinstance(value, Inert) and isinstance(value.state, dict):
        modules[name] = (type(value).__name__, value.state)
        for group in ("_parameters", "_buffers", "_modules"):
            inner = value.state.get(group)
            _walk(inner if isinstance(inner, dict) else {}, name, found, modules, depth + 1)


def read_pickled_module(path: Path) -> PickledModule:
    """Reads a file of `torch.save(module)` or of a state dict; PyTorch is not needed.

    Raises:
        UserError: it is damaged, or not in PyTorch's format since version 1.6.
    """
    try:
        archive = zipfile.ZipFile(path)
        pickled = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        with archive.open(pickled) as file:
            top = _Unpickler(file).load()
        found: dict[str, _Stored] = {}
        modules: dict[str, Any] = {}
        _walk(top, "", found, modules)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except Exception as error:  # damaged pickles end in errors of every kind
        reason = (str(error).strip() or type(error).__name__).split("\n")[0][:200]
        raise UserError(f"{path}: damaged, or not a PyTorch file ({reason})") from None
    if not found:
        raise UserError(f"{path}: holds no tensors")

    def read(name: str) -> np.ndarray:
        stored = found[name]
        dtype = _DTYPES.get(stored.storage[0])
        try:
            if dtype is None:
                raise ValueError(f"{stored.storage[0]} is not read")
            values = np.frombuffer(archive.read(f"{root}data/{stored.storage[1]}"), dtype)
            last = sum((n - 1) * s for n, s in zip(stored.shape, stored.strides))
            if stored.offset + last >= len(values) > 0 or (
                not len(values) and 0 not in stored.shape
            ):
                raise ValueError("it reaches beyond its storage")
            strides = [s * values.itemsize for s in stored.strides]
            view = np.lib.stride_tricks.as_strided(values[stored.offset :], stored.shape, strides)
        except Exception as error:
            raise UserError(f"{path}: {name} cannot be read ({str(error)[:200]})") from None
        if not np.issubdtype(view.dtype, np.floating):
            return view.copy()
        if not np.isfinite(view).all():
            raise UserError(f"{path}: {name} has values that are not finite: the file is damaged")
        return view.astype(np.float32)

    shapes = {name: stored.shape for name, stored in found.items()}
    return PickledModule(Tensors(shapes, read, sha256), modules)
