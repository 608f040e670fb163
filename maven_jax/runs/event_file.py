"""A file of events that TensorBoard shows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class EventFile:
    """Numbers by step; all methods raise OSError when the disk takes no more.

    Args:
        folder: of the files; each run of the same training adds one.
        first_step: TensorBoard drops what earlier files have from this step on.
    """

    def __init__(self, folder: Path, first_step: int):
        folder.mkdir(exist_ok=True)
        # Not SummaryWriter: its thread cannot report a full disk.
        self._writer = EventsWriter(str(folder / "events"))
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, name: str, value: float | int) -> None:
        """Adds one number."""
        self._write(step, summary=scalar(name, value))

    def flush(self) -> None:
        """Puts all onto the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Completes the file."""
        self._writer.close()

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **what))
