"""Hears of what a process does: files, programs, the network, code, pickles."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any


class Watch:
    """An audit hook that notes writes outside of some folders, programs, code and the network.

    What healthy inputs do is usual, and not noted again.
    """

    def __init__(self, allowed: list[Path], scratch: Path):
        self._allowed = [os.path.realpath(p) + "/" for p in allowed]
        self._scratch = os.path.realpath(scratch) + "/"
        self._usual: set[str] = set()
        self.learning, self.noted = True, dict[str, None]()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        with contextlib.suppress(ValueError, TypeError):
            if fault := self._fault(event, args):
                if self.learning:
                    self._usual.add(fault)
                elif fault not in self._usual:
                    self.noted[fault] = None

    def _fault(self, event: str, args: tuple[Any, ...]) -> str | None:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
        if event == "open":
            return self._outside(event, args[:1]) if args[2] & writes else None
        if event in ("os.truncate", "os.chmod"):
            return self._outside(event, args[:1])
        if event in ("os.link", "os.symlink"):
            return self._outside(event, args[1:2], follow=False)
        if event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            if isinstance(args[-1], int) and args[-1] >= 0:
                return None  # in a folder that is open; `shutil.rmtree` told of it
            return self._outside(event, args[:2], follow=False)
        if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
            return f"{event} {args[:2]!r}"[:200]
        if event in ("os.exec", "os.posix_spawn", "os.fork"):
            return f"{event} {args[:1]!r}"
        if event == "pickle.find_class":
            return f"unpickled {args[0]}.{args[1]}"
        if event == "exec" and args[0].co_filename.startswith(self._scratch):
            return f"code of {args[0].co_filename}"
        return None

    def _outside(self, event: str, paths: tuple[Any, ...], follow: bool = True) -> str | None:
        """The first path outside of the allowed folders; `follow` a link, or take it itself."""
        for path in paths:
            if not isinstance(path, str | bytes | os.PathLike):
                continue
            folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
            name = os.path.join(os.path.realpath(folder), name)
            name = os.path.realpath(name) if follow else name
            inside = any((name + "/").startswith(folder) for folder in self._allowed)
            if not inside and not name.startswith(("/dev/", "/proc/")):
                return f"{event} {name}"
        return None
