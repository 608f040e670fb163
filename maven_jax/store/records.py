"""Decodes a record without copying its arrays.

A record is a TensorFlow `Example`, as TFDS stores it: a map from a field's name to a list of
strings or of integers. Protobuf's own parser copies everything twice, which costs as much as
reading the file does. This one reads only tags and lengths, and its arrays are views.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

# Tags (field number << 3 | wire type 2) of the nested messages, the innermost last:
# Example.features, Features.feature, its key and value, Feature.bytes_list or .int64_list, .value
_FEATURES = _ENTRY = _KEY = _BYTES = _VALUE = 0x0A
_FEATURE, _INTEGERS = 0x12, 0x1A
_NUMBERS = ("chunk", "num_frames")


def decode(record: bytes, arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> dict[str, Any]:
    """Returns a record's `video`, `chunk` and `num_frames`, and views of its arrays.

    Args:
        record: as `maven_jax.store.parts.RecordSerializer` makes it.
        arrays: the fields to return -> their dtype and shape.

    Raises:
        ValueError: not such a record, or a field is missing or of another size.
    """
    fields: dict[str, Any] = {}
    for name, begin, stop in _entries(record):
        if name in arrays:
            dtype, shape = arrays[name]
            at, end = _inside(record, begin, _BYTES, stop)
            at, end = _inside(record, at, _VALUE, end)
            count = math.prod(shape)
            if end - at != count * dtype.itemsize:
                raise ValueError(f"{name} has {end - at} bytes, not {count * dtype.itemsize}")
            fields[name] = np.frombuffer(record, dtype, count, at).reshape(shape)
        elif name == "video":
            at, end = _inside(record, begin, _BYTES, stop)
            at, end = _inside(record, at, _VALUE, end)
            fields[name] = record[at:end].decode()
        elif name in _NUMBERS:
            at, end = _inside(record, begin, _INTEGERS, stop)
            at, end = _inside(record, at, _VALUE, end)
            fields[name] = _integer(record, at, end)[0]
    missing = {"video", *_NUMBERS, *arrays} - fields.keys()
    if missing:
        raise ValueError(f"the record has no {', '.join(sorted(missing))}")
    return fields


def _entries(record: bytes) -> Iterator[tuple[str, int, int]]:
    """Name of every field, and the first byte and end of its value."""
    at, end = _inside(record, 0, _FEATURES, len(record))
    if end != len(record):
        raise ValueError("the record is not one Example")
    while at < end:
        begin, stop = _inside(record, at, _ENTRY, end)
        key, key_end = _inside(record, begin, _KEY, stop)
        yield record[key:key_end].decode(), *_inside(record, key_end, _FEATURE, stop)
        at = stop


def _inside(record: bytes, at: int, tag: int, end: int) -> tuple[int, int]:
    """First byte and end of the content of the message that begins at `at`.

    Raises:
        ValueError: it has another tag, or does not end before `end`.
    """
    if at >= end or record[at] != tag:
        raise ValueError(f"the record is not of the store's form at byte {at}")
    size, at = _integer(record, at + 1, end)
    if at + size > end:
        raise ValueError(f"the record is cut off after byte {at}")
    return at, at + size


def _integer(record: bytes, at: int, end: int) -> tuple[int, int]:
    """The integer at `at` (base 128, lowest digit first), and the byte after it."""
    value = shift = 0
    while at < end:
        byte = record[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(f"the record is cut off at byte {at}")
