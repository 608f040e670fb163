"""The weights in an ONNX file, read as data: nothing of its graph is run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.errors import UserError

# Field numbers of onnx.proto.
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_INPUT, _OP, _ATTRIBUTE = 1, 4, 5
_DIMS, _TYPE, _FLOATS, _NAME, _RAW, _EXTERNAL = 1, 2, 4, 8, 9, 13
_FLOAT_TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}
# More than any encoder's file has, so that a forged one ends.
_MOST_FIELDS = 1_000_000


@dataclass
class Node:
    """An operation of the graph: its name, its inputs' names, its whole numbers and lists."""

    op: str
    inputs: list[str] = field(default_factory=list)
    numbers: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxFile:
    """Operations in the order of the graph, floating point tensors by name, the file's sha256."""

    nodes: list[Node]
    tensors: Mapping[str, np.ndarray]
    sha256: str


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of a message's fields: whole numbers, or the bytes of the others."""
    at = count = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, number = key & 7, key >> 3
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("it ends too early")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"a field of type {kind}")
        count += 1
        if count > _MOST_FIELDS:
            raise ValueError("too many fields")
        yield number, value


def _whole(value: Any) -> list[int]:
    """One number, or several in a row."""
    if isinstance(value, int):
        return [value]
    numbers, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return numbers


def _tensor(data: memoryview) -> tuple[str, np.ndarray | None]:
    """Name and values of a tensor; None for one of whole numbers, or in another file."""
    name, dims, kind, raw, floats = "", [], 0, None, []
    for number, value in _fields(data):
        if number == _DIMS:
            dims += _whole(value)
        elif number == _TYPE:
            kind = value
        elif number == _NAME:
            name = bytes(value).decode()
        elif number == _RAW:
            raw = value
        elif number == _FLOATS:
            floats.append(bytes(value))
        elif number == _EXTERNAL:
            raise ValueError("its weights lie in another file")
    if kind not in _FLOAT_TYPES:
        return name, None
    content = bytes(raw) if raw is not None else b"".join(floats)
    values = np.frombuffer(content, _FLOAT_TYPES[kind] if raw is not None else "<f4")
    return name, values.astype(np.float32).reshape(dims)


def _node(data: memoryview) -> Node:
    node = Node("")
    for number, value in _fields(data):
        if number == _INPUT:
            node.inputs.append(bytes(value).decode())
        elif number == _OP:
            node.op = bytes(value).decode()
        elif number == _ATTRIBUTE:
            name, numbers = "", []
            for part, inner in _fields(value):
                if part == 1:
                    name = bytes(inner).decode()
                elif part in (3, 8):
                    numbers += _whole(inner)
            node.numbers[name] = numbers
    return node


def read_onnx(path: Path) -> OnnxFile:
    """Reads a file.

    Raises:
        UserError: it is damaged, no ONNX file, or its weights lie elsewhere.
    """
    nodes: list[Node] = []
    tensors: dict[str, np.ndarray] = {}
    try:
        content = path.read_bytes()
        graphs = [v for n, v in _fields(memoryview(content)) if n == _GRAPH]
        for number, value in (f for graph in graphs for f in _fields(graph)):
            if number == _NODE:
                nodes.append(_node(value))
            elif number == _INITIALIZER:
                name, tensor = _tensor(value)
                if tensor is not None:
                    tensors[name] = tensor
    except (ValueError, IndexError, TypeError, OSError) as error:
        raise UserError(f"{path}: damaged, or not an ONNX file ({str(error)[:200]})") from None
    if not tensors:
        raise UserError(f"{path}: damaged, or not an ONNX file (it holds no weights)")
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise UserError(f"{path}: {name} has values that are not finite: the file is damaged")
    return OnnxFile(nodes, tensors, hashlib.sha256(content).hexdigest())
