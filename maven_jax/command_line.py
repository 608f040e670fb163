"""The argument parser of all commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from maven_jax import files
from maven_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse`'s, but mistakes raise UserError and so end in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help says more)")


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
