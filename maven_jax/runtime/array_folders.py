"""Folders of arrays that orbax and tensorstore read: whatever they raise is one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """For a block that reads a folder by orbax.

    Raises:
        UserError: orbax or tensorstore raised anything; or a pipe or a device lies in the folder,
            for which they would wait for ever.
    """
    silence_late_callbacks()
    for path in folder.rglob("*"):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path}: not a regular file")
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: cannot be read, it may be damaged ({reason[:200]})") from error


def silence_late_callbacks() -> None:
    """Keeps a traceback off the screen for every array that was under way when another failed.

    After the first failure orbax closes its event loop. Tensorstore's callbacks for the other
    arrays then find it closed, which Python prints because it cannot be raised.
    """
    before = sys.unraisablehook
    if getattr(before, "silences_late_callbacks", False):
        return

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    hook.silences_late_callbacks = True  # pyright: ignore[reportFunctionMemberAccess]
    sys.unraisablehook = hook
