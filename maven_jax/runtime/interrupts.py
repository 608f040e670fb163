"""Ctrl-C that ends a command for sure, whatever the main thread is doing.

Python raises KeyboardInterrupt where the main thread is, and so not at all while a compiler keeps
it, and in vain where nothing may be raised (a callback, a destructor) or a library catches all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

# Time to leave by KeyboardInterrupt, which removes temporary files.
GRACE_S = 10.0


def watch(end: Callable[[], object]) -> None:
    """From here on SIGINT raises KeyboardInterrupt in the main thread, and in the end calls `end`.

    A background job, which the shell lets ignore SIGINT, goes on ignoring it.

    Args:
        end: ends the process. Called where KeyboardInterrupt was raised in vain, and in a thread:
            at the second SIGINT, and where the first one has not ended the process in `GRACE_S`.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(reader, end), daemon=True).start()
    hook = sys.unraisablehook

    def unraised(error: Any) -> None:
        if issubclass(error.exc_type, KeyboardInterrupt):
            end()
        hook(error)

    sys.unraisablehook = unraised


def _wait(reader: int, end: Callable[[], object]) -> None:
    """Reads the numbers of signals, which arrive whatever holds the main thread."""
    pressed = False
    while numbers := os.read(reader, 64):
        times = numbers.count(signal.SIGINT)
        if times > (0 if pressed else 1):
            end()
        elif times:
            pressed = True
            timer = threading.Timer(GRACE_S, end)
            timer.daemon = True
            timer.start()
