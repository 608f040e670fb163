"""Errors that the user can mend, and the words for them: one line, exit code 2, no traceback."""

import difflib
import errno
import os
from collections.abc import Iterator, Sequence

_DISK_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "files may not grow that large (ulimit -f)",
}
# What a path may be refused for; libraries in C++ hand on the text alone.
_PATH_REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
)


# Invisible, but part of words and of emoji.
_JOINERS = "\u200c\u200d"


class UserError(ValueError):
    """A mistake in input, configuration or files; its one-line message says where and what to do.

    Raised for everything that a user can mend without reading our code.
    """


def printable(text: str) -> str:
    """`text` on one line, as it may go to a terminal: what would control it is spelled out.

    File names, transcripts and records of others reach the screen through this.
    """
    return "".join(
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text
    )


def did_you_mean(word: str, names: Sequence[str]) -> str:
    """The end of a message about an unknown name: the one of `names` that is close, or all."""
    close = difflib.get_close_matches(word, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


def listing(items: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    """The first items, and how many more there are: `a, b and 3 more`."""
    more = f" and {len(items) - most:,} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def disk_refusal(error: BaseException | None) -> str | None:
    """Why the disk took no more, if an error comes from that; None otherwise.

    Args:
        error: from any library. Its causes and the errors that it groups are searched too, by
            text as well as by code, as some libraries keep only the text.
    """
    for one in _with_causes(error):
        for code, reason in _DISK_REFUSALS.items():
            if getattr(one, "errno", None) == code or os.strerror(code) in str(one):
                return reason
    return None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, those that led to it, and those that it groups."""
    searched: set[int] = set()
    to_search = [error]
    while to_search:
        error = to_search.pop()
        if error is None or id(error) in searched:
            continue
        searched.add(id(error))
        yield error
        to_search += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]


def _path_refusal(error: BaseException) -> str | None:
    """One line about a file that the system does not let us read or write; None for other errors.

    Every OSError about a file counts, and errors of libraries that say the same in their words.
    """
    for one in _with_causes(error):
        name = getattr(one, "filename", None)
        if isinstance(one, OSError) and name is not None:
            return f"{os.fsdecode(name)}: {one.strerror or one}"
        for code in _PATH_REFUSALS:
            if not isinstance(one, OSError) and os.strerror(code) in str(one):
                return " ".join(str(one).split())[:300]
    return None


def explain(error: BaseException) -> str | None:
    """One line about an error that the user can mend; None for one that needs its traceback."""
    if isinstance(error, UserError):
        return str(error)
    reason = disk_refusal(error)
    if reason is None:
        return _path_refusal(error)
    name = getattr(error, "filename", None)
    place = f"{name}: " if name else ""
    return f"{place}{reason}: make room, then give the same command again"
