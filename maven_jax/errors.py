"""Errors that are the user's to mend: the command line prints one line and exits with code 2."""

import difflib
from collections.abc import Sequence


class UserError(ValueError):
    """A mistake in input, configuration or files: its one-line message says where and what to do.

    Raised for everything that a user can mend without reading our code. `maven_jax.__main__`
    prints it without a traceback and exits with code 2.
    """


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` when something close is known, otherwise what is allowed."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"
