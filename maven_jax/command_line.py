"""The argument parser of all commands."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import Any, NoReturn

from maven_jax import files
from maven_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse`'s, but mistakes raise UserError and so end in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help says more)")

    def parse_known_args(self, *given: Any, **named: Any) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As `argparse`'s; an unknown option that is close to a known one is a mistake."""
        return self._without_slips(super().parse_known_args(*given, **named))

    def parse_known_intermixed_args(self, *given: Any, **named: Any) -> tuple[Any, list[str]]:  # type: ignore[override]
        """As `parse_known_args`."""
        return self._without_slips(super().parse_known_intermixed_args(*given, **named))

    def _without_slips(self, parsed: tuple[Any, list[str]]) -> tuple[Any, list[str]]:
        options = [o for action in self._actions for o in action.option_strings if o[:2] == "--"]
        for word in parsed[1]:
            name = word.partition("=")[0]
            # Values of recipes have a point in their names.
            if word[:2] == "--" and "." not in name:
                close = difflib.get_close_matches(name, options, n=1)
                if close:
                    raise UserError(
                        f"no option {name}; did you mean {close[0]}? (--help says more)"
                    )
        return parsed


def local_path(text: str) -> Path:
    """An option's value as a path, for `type=`."""
    try:
        return files.local_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> float:
    """An option's value as a finite number above 0, for `type=`."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def count(text: str) -> int:
    """An option's value as a whole number above 0, for `type=`."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return value
