"""Named tensors of a file or folder of weights, in the forms that people hand them on in."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes  # noqa: F401  (teaches NumPy, and so safetensors, bfloat16)
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from maven_jax.convert import pickles
from maven_jax.errors import UserError, listing
from maven_jax.inputs import ZIP_ERRORS, read_json

# In order of preference: safetensors need no PyTorch and cannot carry code.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_Read = tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray], list[str]]
# What a compressed file may unpack to, in memory.
_MOST_BYTES = 2 << 30
# How files begin that are no weights, and what they are.
_OTHERS = (
    (b"<!doctype html", "an HTML page: the download went wrong, fetch the file itself"),
    (b"<html", "an HTML page: the download went wrong, fetch the file itself"),
    (b"<?xml", "an XML page: the download went wrong, fetch the file itself"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file: run git lfs pull"),
    (b"\x89hdf\r\n", "an HDF5 file; save the weights as safetensors or npz"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"rar!", "a RAR archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it"),
    (b"bzh", "compressed by bzip2: unpack it"),
    (b"\xfd7zxz", "compressed by xz: unpack it"),
)
# Members of an archive that may be weights.
_WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar", ".safetensors", ".npz")


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint, read one at a time.

    Attributes:
        shapes: name -> shape.
        read: name -> the tensor; floating point ones as float32, finite or a UserError.
        sha256: of the file's bytes; of several shards, that of the lines "<name> <sha256>"
            sorted by name.
        notes: what should be said of where the tensors were found.
    """

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    sha256: str
    notes: tuple[str, ...] = ()


def _as_float32(tensor: np.ndarray) -> np.ndarray:
    """Half precision of either kind, and float64, as float32; others as they are."""
    is_float = np.issubdtype(tensor.dtype, np.floating) or tensor.dtype.name == "bfloat16"
    return tensor.astype(np.float32) if is_float else tensor


def _finite(path: Path, name: str, tensor: np.ndarray) -> np.ndarray:
    """The tensor, if all its numbers are finite; with others every prediction would be NaN."""
    if np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all():
        raise UserError(f"{path}: {name[:120]} has values that are not finite: the file is damaged")
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


def _read_safetensors(path: Path, source: Path | bytes) -> _Read:
    try:
        if isinstance(source, bytes):
            return *_of_arrays(path, safetensors.numpy.load(source)), []
        file = safe_open(source, framework="numpy")
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = str(error)[:200]
        raise UserError(f"{path}: truncated or not a safetensors file ({reason})") from None
    return shapes, lambda name: _finite(path, name, _as_float32(file.get_tensor(name))), []


def _of_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Any:
    shapes = {name: array.shape for name, array in arrays.items()}
    return shapes, lambda name: _finite(path, name, _as_float32(arrays[name]))


def _read_pickle(path: Path, source: Path | bytes, key: str | None = None) -> _Read:
    state, notes = pickles.state_dict_in(pickles.load(source, path), path, key)
    shapes, read = pickles.arrays_of(state)
    return shapes, lambda name: _finite(path, name, _as_float32(read(name))), notes


def _read_npz(path: Path, source: Path | bytes) -> _Read:
    try:
        file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
        with np.load(file, allow_pickle=False) as arrays:
            read = dict(arrays)
            for name, array in read.items():
                if not isinstance(array, np.ndarray):  # bytes: it does not begin as an array does
                    raise TypeError(f"{name[:100]!r} is no array")
            return *_of_arrays(path, read), []
    # Damaged headers end in errors of every kind.
    except (*ZIP_ERRORS, ValueError, TypeError, MemoryError, SyntaxError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UserError(f"{path}: damaged, or holds more than arrays ({reason})") from None


def _refuse_key(path: Path, key: str | None) -> None:
    if key is not None:
        raise UserError(f"--key {key[:80]}: {path} has no keys, only tensors")


def _gunzipped(path: Path, source: Path | bytes) -> bytes:
    try:
        file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
        with gzip.open(file) as unpacked:
            data = unpacked.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged ({str(error)[:200]})") from None
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: unpacks to more than {_MOST_BYTES >> 30} GiB: unpack it by hand")
    return data


def _in_zip(path: Path, source: Path | bytes, key: str | None, packed: int) -> _Read:
    """The tensors of a PyTorch file, an npz or the one file of weights in an archive: all zips."""
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            members = [m for m in file.infolist() if not m.is_dir()]
            names = [m.filename for m in members]
            if any(PurePosixPath(name).name == "data.pkl" for name in names):
                return _read_pickle(path, source, key)
            if sum(m.file_size for m in members) > _MOST_BYTES:
                raise UserError(
                    f"{path}: unpacks to more than {_MOST_BYTES >> 30} GiB: unpack it by hand"
                )
            if names and all(name.endswith(".npy") for name in names):
                _refuse_key(path, key)
                return _read_npz(path, source)
            weights = [
                name
                for name in names
                if name.lower().endswith(_WEIGHT_SUFFIXES) and not name.startswith("__MACOSX/")
            ]
            if len(weights) != 1:
                has = listing([n[:60] for n in weights or names], 5) or "nothing"
                raise UserError(
                    f"{path}: an archive of {len(weights) or 'no'} files of weights ({has}): "
                    "unpack it and name one"
                )
            shapes, read, notes = _read_any(path, file.read(weights[0]), key, packed + 1)
            return shapes, read, [f"{weights[0]} in the archive", *notes]
    except ZIP_ERRORS as error:
        reason = str(error)[:200]
        raise UserError(f"{path}: a truncated, damaged or locked zip ({reason})") from None


def _read_any(path: Path, source: Path | bytes, key: str | None, packed: int = 0) -> _Read:
    """Shapes, reader and notes, by how the bytes begin; `packed` counts the archives around."""
    if isinstance(source, bytes):
        start = source[:512]
    else:
        with source.open("rb") as file:
            start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    what = next((said for begins, said in _OTHERS if text.startswith(begins)), None)
    if start[257:262] == b"ustar":
        what = "a tar archive: unpack it"
    if what is not None:
        raise UserError(f"{path}: {what}")
    if packed > 2:
        raise UserError(f"{path}: archives within archives: unpack it by hand")
    if start[:2] == b"\x1f\x8b":
        return _read_any(path, _gunzipped(path, source), key, packed + 1)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _in_zip(path, source, key, packed)
    # Behind the 8 bytes of its length, the header of safetensors is a JSON object.
    if start[8:9] == b"{" or (not packed and path.suffix == ".safetensors"):
        _refuse_key(path, key)
        return _read_safetensors(path, source)
    return _read_pickle(path, source, key)


def read_file(path: Path, key: str | None = None) -> Tensors:
    """The tensors of one file, in whatever form people hand weights on.

    These are safetensors, PyTorch files of either format in which a state dict may be nested, npz,
    and one of them within a gzip or a zip.

    Args:
        path: the file.
        key: where in a PyTorch file the state dict lies, `outer.inner`.

    Raises:
        UserError: it is missing or damaged, holds no named tensors, is a pickle of anything but
            tensors and harmless objects, or PyTorch is needed and not installed.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        shapes, read, notes = _read_any(path, path, key)
        sha256 = _sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not shapes:
        raise UserError(f"{path}: holds no tensors")
    return Tensors(shapes, read, sha256, tuple(notes))


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
        shapes, read, _ = read_any(path, path)
        return Tensors(shapes, read, _sha256(path))

    where, shards = _shards(path)
    by_shard = {shard.name: read_any(shard, shard) for shard in shards}
    for name, shard in where.items():
        if name not in by_shard[shard][0]:
            raise UserError(f"{path.parent / shard}: has no tensor {name}, which {path.name} names")
    lines = "".join(f"{shard.name} {_sha256(shard)}\n" for shard in shards)
    return Tensors(
        {name: by_shard[shard][0][name] for name, shard in where.items()},
        lambda name: by_shard[where[name]][1](name),
        hashlib.sha256(lines.encode()).hexdigest(),
    )
