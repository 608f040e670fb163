"""Sections of the encoders' recipes: taken whole, by a kind or a published name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.errors import UserError, listing

_GROUP = "encoders"
_RANDOM = "random"


def override(encoders: ConfigDict, arguments: Sequence[str]) -> list[str]:
    """`recipes.override` of the encoders' recipe, in place.

    `--encoders.MODALITY=NAME` takes the section of published weights (or of a kind), and another
    `--encoders.MODALITY.kind` brings the keys of that kind; of the section before only the
    precision stays, and that it is small and random. Both come before values of single keys.

    Returns:
        The overrides as `a.b=value`.

    Raises:
        UserError: an unknown name, kind or key, a value of the wrong type.
    """
    modalities = recipes.names(f"{_GROUP}/sections")
    taken, rest = [], []
    words = list(arguments)
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if not equals and words and not words[0].startswith("--"):
            value = words.pop(0)
            equals = "="
        parts = key.removeprefix(f"--{_GROUP}.").split(".")
        is_section = key.startswith(f"--{_GROUP}.") and parts[0] in modalities
        if is_section and value and parts[1:] in ([], ["kind"]):
            _take(encoders, parts[0], value)
            taken.append(f"{'.'.join(parts)}={value}")
        else:
            rest.append(key + equals + value)
    return taken + recipes.override(encoders, rest, prefix=_GROUP)


def published(
    name: str, kinds: Sequence[str], named: Mapping[str, tuple[str, dict[str, Any]]]
) -> tuple[str, dict[str, Any]]:
    """The kind that a name stands for, and the values of its section that differ.

    Args:
        name: a kind, or the published name of weights; that without its owner will do.
        kinds: those that there are.
        named: published name -> kind and values.

    Raises:
        UserError: an unknown name; the message lists what there is.
    """
    if name in kinds:
        return name, {}
    for full, (kind, values) in named.items():
        if name.lower() in (full.lower(), full.rpartition("/")[2].lower()):
            return kind, {"source": full} | values
    short = [full.rpartition("/")[2] for full in named]
    close = difflib.get_close_matches(name, [*kinds, *short], n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise UserError(
        f"no encoder {name[:60]!r}{meant}; kinds: {', '.join(kinds)}; weights by name: "
        f"{listing(short, 10)}"
    )


def _take(encoders: ConfigDict, modality: str, name: str) -> None:
    old: Any = encoders.get(modality, {})
    if old.get("kind") == name:
        return
    size = ":tiny" if old.get("source") == _RANDOM and "/" not in name else ""
    new = recipes.load(f"sections/{modality}:{name}{size}", group=_GROUP)
    if "dtype" in old and "dtype" in new:
        new.dtype = old.dtype
    with encoders.unlocked():
        encoders[modality] = new
