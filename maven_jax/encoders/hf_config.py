"""Reading a Hugging Face `config.json` into one of our config dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from maven_jax.errors import UserError

C = TypeVar("C")


def _convert(key: str, value: Any, kind: Any) -> Any:
    """`value` as `kind` (one of the types below), or a UserError that names the key."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and is_int and value >= 0:
        return value
    if kind is float and (is_int or isinstance(value, float)):
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind == tuple[int, ...] and isinstance(value, list | tuple) and value:
        return tuple(_convert(key, v, int) for v in value)
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    raise UserError(
        f"config.json: {key} is {value!r}, expected {expected.get(kind, 'a list of whole numbers')}"
    )


def from_hf(cls: type[C], config: Mapping[str, Any]) -> C:
    """The fields of dataclass `cls` from the keys of the same names; missing ones keep defaults.

    Raises:
        UserError: a value has another type than the field.
    """
    hints = get_type_hints(cls)
    known = {
        field.name: _convert(field.name, config[field.name], hints[field.name])
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name in config
    }
    return cls(**known)


def check_divides(config: Mapping[str, Any] | Any, part: str, whole: str) -> None:
    """Raises a UserError unless attribute `part` of `config` divides its attribute `whole`."""
    a, b = getattr(config, part), getattr(config, whole)
    if a < 1 or b % a:
        raise UserError(f"config.json: {part} {a} does not divide {whole} {b}")
