"""Errors that are the user's to mend: the command line prints one line and exits with code 2."""

import difflib
import errno
import os
from collections.abc import Sequence

# Refusals that the user can mend by making room.
_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not grow that large (ulimit -f)",
}


class UserError(ValueError):
    """A mistake in input, configuration or files: its one-line message says where and what to do.

    Raised for everything that a user can mend without reading our code. `maven_jax.__main__`
    prints it without a traceback and exits with code 2.
    """


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` when something close is known, otherwise what is allowed."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known) or 'none'}"


def disk_refusal(error: BaseException | None) -> str | None:
    """Why the disk took no more, if that is at the root of an error; None otherwise.

    Args:
        error: of any library; what caused it, what it was raised from and what it groups is
            searched too, and texts as well as codes: some libraries keep only the text.
    """
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        for code, reason in _REFUSALS.items():
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
                return reason
        waiting += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
    return None


def explain(error: BaseException) -> str | None:
    """The one line for an error that the user can mend; None for one that needs its traceback."""
    if isinstance(error, UserError):
        return str(error)
    reason = disk_refusal(error)
    if reason is None:
        return None
    name = getattr(error, "filename", None)
    place = f"{name}: " if name else ""
    return f"{place}{reason}: make room, then give the same command again"
