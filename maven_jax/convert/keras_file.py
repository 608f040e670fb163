"""Weights in Keras's HDF5 files, as data: layers' arrays under the names that the tables use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.convert.tensor_files import Tensors
from maven_jax.errors import UserError

SUFFIXES = (".hdf5", ".h5")
# What Keras calls the arrays of a layer -> as PyTorch does; kernels turn into PyTorch's layout.
_NAMES = {
    "kernel": ("weight", (3, 2, 0, 1)),
    "pointwise_kernel": ("pointwise.weight", (3, 2, 0, 1)),
    "depthwise_kernel": ("depthwise.weight", (2, 3, 0, 1)),
    "bias": ("bias", None),
    "gamma": ("weight", None),
    "beta": ("bias", None),
    "moving_mean": ("running_mean", None),
    "moving_variance": ("running_var", None),
}
# Of a file: far above any network of Keras's that is read here.
_MOST_VALUES = 100_000_000


def read_keras(path: Path) -> Tensors:
    """The arrays of a Keras HDF5 file; its config and what links lead to elsewhere are not read.

    Raises:
        UserError: h5py is not installed, or the file is damaged or no such file.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            f"{path}: HDF5 is read by h5py, which is not installed: pip install 'maven_jax[affect]'"
        ) from None
    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            is_inside = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
            root = file["model_weights"] if is_inside else file
            for layer, leaf, dataset in _datasets(h5py, root):
                name, axes = _NAMES.get(leaf, (leaf, None))
                if sum(a.size for a in arrays.values()) + dataset.size > _MOST_VALUES:
                    raise UserError(f"{path}: too large")
                array = np.asarray(dataset[()], np.float32)
                if axes is not None and array.ndim == 4:
                    array = np.ascontiguousarray(array.transpose(axes))
                arrays[f"{layer}.{name}"] = array
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not an HDF5 file with weights ({reason})") from None
    if not arrays:
        raise UserError(f"{path}: holds no weights of layers")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} has values that are not finite: the file is damaged")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Tensors({name: a.shape for name, a in arrays.items()}, arrays.__getitem__, sha256)


def _datasets(h5py: Any, group: Any, layer: str = "") -> Iterator[tuple[str, str, Any]]:
    """(layer, name without `:0`, dataset) of all arrays that lie in the file itself."""
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        item = group[key]
        if isinstance(item, h5py.Group):
            yield from _datasets(h5py, item, layer or key)
        elif _is_plain(h5py, item) and layer:
            yield layer, key.split(":")[0], item


def _is_plain(h5py: Any, item: Any) -> bool:
    """Whether it is an array of numbers whose bytes lie in this file."""
    is_array = isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
    return is_array and not item.external and not item.is_virtual
