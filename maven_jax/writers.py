"""Where numbers of a run go: JSON lines for programs, TensorBoard events for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under another name and renames it, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".incomplete")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)


class MetricWriter:
    """Appends rows to `metrics.jsonl` and TensorBoard events.

    A run that continues from step s repeats the steps behind s: their earlier rows go, so that
    the file reads as if the run had never stopped.

    Args:
        workdir: folder of the run.
        resume_step: last step that the restored state has taken.
    """

    def __init__(self, workdir: Path, resume_step: int):
        self._path = workdir / "metrics.jsonl"
        kept = [row for row in read_metrics(workdir) if row["step"] <= resume_step]
        temporary = self._path.with_name(self._path.name + ".incomplete")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(self._path)
        self._file = self._path.open("a")
        self._events = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=resume_step + 1, write_to_disk=True
        )

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """One row `{"step", "kind", **values}`; kind is `train` or a split.

        TensorBoard gets the values that are numbers.
        """
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        self._events.close()


class SilentWriter:
    """In place of `MetricWriter` in the processes that write nothing."""

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Drops the row."""

    def close(self) -> None:
        """Has nothing to close."""


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`; a last line that a killed run left half written is dropped."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows
