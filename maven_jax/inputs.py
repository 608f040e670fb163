"""Reading files that anybody may have written."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError

# Of a JSON file: the largest of ours, `store.json` of a large corpus, has some megabytes.
JSON_BYTES = 128 << 20
# What its values may take in memory, roughly: a few characters can make a dict of 240 bytes.
JSON_MEMORY = 400 << 20
# Ours are 8 deep at most.
JSON_DEPTH = 64


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        kind: what it should be, for the message.

    Raises:
        UserError: it is missing, no regular file, too large or too deep, or holds no JSON object.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file; expected {kind}")
        if status.st_size > JSON_BYTES:
            raise UserError(f"{path}: {status.st_size:,} bytes are too many for {kind}")
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected {kind}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: cannot be read as JSON ({error}); expected {kind}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; expected {kind}")
    return value


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
