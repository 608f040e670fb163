"""Reading a Hugging Face `config.json`, or a config of our own, into a config dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from maven_jax.errors import UserError, did_you_mean

C = TypeVar("C")


# Larger sizes than of any encoder: they stop forged configs before anything is built.
MOST_UNITS, MOST_LAYERS = 10_000_000, 1_000
_HF, _OWN = "config.json", "encoder config"


def _convert(key: str, value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind` (one of the types below), or a UserError that names the key."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind is int and is_int and value >= 0:
        most = MOST_LAYERS if key.endswith(("layers", "depths")) else MOST_UNITS
        if value > most:
            raise UserError(f"{where}: {key} is {value:,}, expected at most {most:,}")
        return value
    if kind is float and (is_int or isinstance(value, float)):
        return float(value)
    if kind in (bool, str) and isinstance(value, kind):
        return value
    if kind == tuple[int, ...] and isinstance(value, list | tuple) and value:
        return tuple(_convert(key, v, int, where) for v in value)
    expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    raise UserError(
        f"{where}: {key} is {value!r}, expected {expected.get(kind, 'a list of whole numbers')}"
    )


def from_hf(cls: type[C], config: Mapping[str, Any]) -> C:
    """The fields of dataclass `cls` from the keys of the same names; missing ones keep defaults.

    Raises:
        UserError: a value has another type than the field.
    """
    return _from(cls, config, _HF)


def from_own(cls: type[C], config: Mapping[str, Any]) -> C:
    """The fields of dataclass `cls` from a config of our own; missing ones keep defaults.

    Raises:
        UserError: a key is no field, or a value has another type than the field.
    """
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in config:
        if key not in names:
            raise UserError(f"{_OWN}: unknown key {key!r}{did_you_mean(key, names)}")
    return _from(cls, config, _OWN)


def _from(cls: type[C], config: Mapping[str, Any], where: str) -> C:
    hints = get_type_hints(cls)
    values = {
        field.name: _convert(field.name, config[field.name], hints[field.name], where)
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name in config
    }
    return cls(**values)


def check_positive(config: Any, but: tuple[str, ...] = ()) -> None:
    """Raises a UserError where a whole number of our own `config` is 0, except in keys `but`."""
    for key, value in vars(config).items():
        values = value if isinstance(value, tuple) else (value,)
        is_size = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
        if is_size and key not in but and min(values) < 1:
            raise UserError(f"{_OWN}: {key} is {value}, expected at least 1")


def check_length(config: Any, key: str, length: int) -> None:
    """Raises a UserError unless our own `config` has `length` values under `key`."""
    if len(getattr(config, key)) != length:
        raise UserError(f"{_OWN}: {key} is {getattr(config, key)}, expected {length} values")


def check_same_length(config: Any, *keys: str) -> None:
    """Raises a UserError unless our own `config` has equally many values under all `keys`."""
    values = [f"{key} {getattr(config, key)}" for key in keys]
    if len({len(getattr(config, key)) for key in keys}) != 1:
        raise UserError(f"{_OWN}: {' and '.join(values)} differ in length")


def check_divides(config: Mapping[str, Any] | Any, part: str, whole: str) -> None:
    """Raises a UserError unless attribute `part` of `config` divides its attribute `whole`."""
    a, b = getattr(config, part), getattr(config, whole)
    if a < 1 or b % a:
        raise UserError(f"config.json: {part} {a} does not divide {whole} {b}")
