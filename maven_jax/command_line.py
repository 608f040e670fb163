"""The argument parser of all commands."""

from __future__ import annotations

import argparse
from typing import NoReturn

from maven_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse`'s, but mistakes end in one line, as everywhere else."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help says more)")
