"""Reading files that anybody may have written."""

from __future__ import annotations

import json
import lzma
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError

# Of a JSON file: the largest of ours, `store.json` of a large corpus, has some megabytes.
JSON_BYTES = 128 << 20
# What its values may take in memory, roughly: a few characters can make a dict of 240 bytes.
JSON_MEMORY = 400 << 20
# Ours are 8 deep at most.
JSON_DEPTH = 64
# What opening and unpacking a damaged or locked zip raises; not ValueError, which UserError is.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, EOFError, RuntimeError, NotImplementedError, UnicodeDecodeError),
)


def read_json(path: Path, kind: str, pattern: Any = dict) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        kind: what it should be, for the message.
        pattern: of what is read from it, as `mismatch` takes them.

    Raises:
        UserError: it is missing, no regular file, too large or too deep, holds no JSON object, or
            not what the pattern says.
    """
    raw = read_file(path, kind)
    try:
        value = parse_json(raw)
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected {kind}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; expected {kind}")
    if fault := mismatch(value, pattern):
        raise UserError(f"{path}: {fault}; expected {kind}")
    return value


def read_file(path: Path, kind: str = "a text") -> bytes:
    """The bytes of a file of at most `JSON_BYTES`.

    Raises:
        UserError: it is missing, no regular file, too large, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file; expected {kind}")
        if status.st_size > JSON_BYTES:
            raise UserError(f"{path}: {status.st_size:,} bytes are too many for {kind}")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {kind}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def parse_json(raw: bytes) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or takes too much memory or depth.
    """
    memory = len(raw) + 240 * raw.count(b"{") + 64 * raw.count(b"[") + 40 * raw.count(b",")
    if memory > JSON_MEMORY:
        raise ValueError(f"its values would take about {memory >> 20:,} MiB")
    try:
        value = json.loads(raw.decode())
    except RecursionError:
        raise ValueError(f"nested deeper than {JSON_DEPTH} levels") from None
    _check_depth(value, JSON_DEPTH)
    if b"\\ud" in raw or b"\\uD" in raw:  # half a character, which no file or screen takes
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _check_depth(value: Any, levels: int) -> None:
    """Raises ValueError if lists and dicts are nested deeper: Python's stack would not do."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    if not levels:
        raise ValueError(f"nested deeper than {JSON_DEPTH} levels")
    for item in value:
        _check_depth(item, levels - 1)


def mismatch(value: Any, pattern: Any, place: str = "") -> str | None:
    """Where a JSON value is not as a pattern says; None if it is.

    Args:
        value: from JSON.
        pattern: a type (float takes any finite number, None null); a tuple of patterns, one of
            which has to fit; `[p]` for a list, `{str: p}` for an object of any keys, and
            `{"key": p}` for one that has at least these.
        place: of the value, for the message.
    """
    if isinstance(pattern, tuple):
        faults = [mismatch(value, p, place) for p in pattern]
        return None if None in faults else faults[0]
    if isinstance(pattern, list):
        items = enumerate(value) if isinstance(value, list) else None
        inner = None if items is None else ((f"{place}[{i}]", v, pattern[0]) for i, v in items)
    elif isinstance(pattern, dict) and isinstance(value, dict):
        if str in pattern:
            inner = ((f"{place}.{k}".lstrip("."), v, pattern[str]) for k, v in value.items())
        elif lacking := [k for k in pattern if k not in value]:
            return f"{f'{place}.'.lstrip('.')}{lacking[0]} is missing"
        else:
            inner = ((f"{place}.{k}".lstrip("."), value[k], p) for k, p in pattern.items())
    else:
        inner = () if _is_of(value, pattern) else None
    if inner is None:
        return f"{place or 'it'} is {str(value)[:60]!r}"
    return next((fault for at, v, p in inner if (fault := mismatch(v, p, at))), None)


def _is_of(value: Any, kind: Any) -> bool:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and abs(value) < float("inf")
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value is None if kind is None else isinstance(kind, type) and isinstance(value, kind)
