"""What a corpus holds and what is wrong with it, as a table, as lines and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from data_prep.corpus.check_video import VideoCheck
from data_prep.corpus.layout import SPLITS, Corpus
from maven_jax.media.problems import NOTE, REPAIRED, UNUSABLE, Problem, relative
from maven_jax.progress import console, say


@dataclass
class CorpusReport:
    """What a corpus holds and what is wrong with it.

    Attributes:
        corpus: as scanned.
        checks: one for each of `corpus.videos`, in their order.
        problems: of layout and contents, the most serious first, each once.
    """

    corpus: Corpus
    checks: list[VideoCheck]
    problems: list[Problem] = field(init=False)

    def __post_init__(self) -> None:
        problems = [*self.corpus.problems, *(p for check in self.checks for p in check.problems)]
        order = (UNUSABLE, REPAIRED, NOTE)
        self.problems = sorted(dict.fromkeys(problems), key=lambda p: order.index(p.severity))

    @property
    def unusable(self) -> list[str]:
        """What cannot be prepared, by name: videos, and names or files that were refused."""
        names = (p.video or p.file for p in self.problems if p.severity == UNUSABLE)
        return sorted(dict.fromkeys(names))

    @property
    def usable(self) -> list[VideoCheck]:
        """The checks of all videos that can be prepared."""
        unusable = set(self.unusable)
        return [check for check in self.checks if check.video.name not in unusable]

    def counts(self, split: str | None = None) -> dict[str, float | int]:
        """The numbers of one split, or of all."""
        checks = [c for c in self.checks if split in (None, c.video.split)]
        unusable = set(self.unusable)
        fps = [c.fps for c in checks if c.fps > 0]
        return {
            "videos": len(checks),
            "unusable": sum(c.video.name in unusable for c in checks),
            "frames": sum(c.num_frames for c in checks),
            "fps_min": min(fps, default=0.0),
            "fps_median": float(np.median(fps)) if fps else 0.0,
            "fps_max": max(fps, default=0.0),
            "missing_crops": sum(c.missing_crops for c in checks),
            "broken_crops": sum(c.broken_crops for c in checks),
            "unlabelled": sum(c.unlabelled for c in checks),
            "length_differences": sum(bool(c.length_difference) for c in checks),
            "without_crops": sum(c.video.crops is None for c in checks),
            "without_video": sum(c.video.media is None for c in checks),
            "without_sound": sum(c.video.audio is None for c in checks),
            "without_transcript": sum(c.video.transcript is None for c in checks),
        }

    def table(self) -> Table:
        """The counts, a column for each split."""
        columns = [(s, self.counts(s)) for s in SPLITS] + [("all", self.counts())]
        columns = [(name, counts) for name, counts in columns if counts["videos"]]
        table = Table(title=None)
        table.add_column("")
        for name, _ in columns:
            table.add_column(name, justify="right", no_wrap=True)
        labels = {"unlabelled": "-5 rows", "length_differences": "videos of unequal lengths"}
        labels |= {f"fps_{k}": f"fps, {k}" for k in ("min", "median", "max")}
        for key in self.counts():
            label = labels.get(key, key.replace("_", " "))
            shown = [f"{c[key]:,.2f}" if "fps" in key else f"{c[key]:,}" for _, c in columns]
            table.add_row(label, *shown)
        return table

    def lines(self, limit: int | None = None) -> list[str]:
        """The problems, one to a line under the severity; at most `limit` notes."""
        lines = []
        for severity in (UNUSABLE, REPAIRED, NOTE):
            problems = [str(p) for p in self.problems if p.severity == severity]
            if not problems:
                continue
            lines.append(f"{severity} ({len(problems):,}):")
            shown = problems[:limit] if severity == NOTE else problems
            lines += [f"  {line}" for line in shown]
            if len(shown) < len(problems):
                lines.append(f"  … and {len(problems) - len(shown):,} more")
        return lines

    def show(self, limit: int | None = 200) -> None:
        """Prints table, orphans and problems."""
        console.print(self.table())
        orphans = {kind: len(paths) for kind, paths in self.corpus.orphans.items() if paths}
        if orphans:
            say("of no video: " + ", ".join(f"{n:,} {kind}" for kind, n in orphans.items()))
        for line in self.lines(limit):
            say(line)

    def to_json(self) -> dict[str, Any]:
        """Everything except the frame times, as JSON."""
        root = self.corpus.root
        fields = ("severity", "file", "place", "message", "video")
        unusable = set(self.unusable)
        return {
            "root": str(root),
            "splits": {split: self.counts(split) for split in SPLITS},
            "orphans": {
                kind: [relative(path, root) for path in paths]
                for kind, paths in self.corpus.orphans.items()
            },
            "unusable": self.unusable,
            "videos": [
                {
                    "video": c.video.name,
                    "split": c.video.split,
                    "usable": c.video.name not in unusable,
                    "num_frames": c.num_frames,
                    "fps": c.fps,
                    "missing_crops": c.missing_crops,
                    "broken_crops": c.broken_crops,
                    "unlabelled": c.unlabelled,
                    "length_difference": c.length_difference,
                }
                for c in self.checks
            ],
            "problems": [{name: getattr(p, name) for name in fields} for p in self.problems],
        }
