"""A line on the terminal when a process ends in a way that leaves it no time for one.

SIGKILL does, and so does JAX's runtime: it aborts a process whose coordinator is gone, and the last
thing that it prints is a stack trace of its own.
"""

from __future__ import annotations

import contextlib
import subprocess


class LastWords:
    """Has a shell wait for this process to end, and say something then unless told otherwise.

    Args:
        message: what it says.
    """

    def __init__(self, message: str):
        self._shell: subprocess.Popen | None = None
        with contextlib.suppress(OSError):  # without a shell, without the line
            self._shell = subprocess.Popen(
                # `read` fails when the other end of the pipe is closed without a word.
                ["/bin/sh", "-c", 'read -r _ || echo "$0" >&2', message],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                close_fds=True,
            )

    def withdraw(self) -> None:
        """Makes it say nothing: the end is an orderly one, or has been explained."""
        if self._shell is None:
            return
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError):
            self._shell.stdin.write(b"\n")
            self._shell.stdin.close()
        self._shell.wait()
        self._shell = None
