"""What the worker processes of a command do when it ends early."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def follow_parent() -> None:
    """Lets a worker end with its parent, and leave Ctrl-C to it; for `initializer=` of a pool.

    A terminal sends Ctrl-C to all of them; each worker would print a traceback. And a parent that
    ends at once has no time to tell them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
