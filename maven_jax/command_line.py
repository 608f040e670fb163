"""The argument parser of all commands."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from maven_jax import files
from maven_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse`'s, but mistakes raise UserError and so end in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help says more)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As `argparse`'s; an unknown option that is close to a known one is a mistake."""
        self._check_spelling(args)
        return super().parse_known_args(args, namespace)

    def parse_known_intermixed_args(
        self, args: Any = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As `parse_known_args`."""
        self._check_spelling(args)
        return super().parse_known_intermixed_args(args, namespace)

    def _check_spelling(self, words: Sequence[str] | None) -> None:
        options = [o for action in self._actions for o in action.option_strings if o[:2] == "--"]
        for word in words or ():
            name = word.partition("=")[0]
            # Names with a point are of values of recipes; others may be short for an option.
            if name[:2] != "--" or "." in name or any(o.startswith(name) for o in options):
                continue
            if close := difflib.get_close_matches(name, options, n=1):
                raise UserError(f"no option {name}; did you mean {close[0]}? (--help says more)")


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
