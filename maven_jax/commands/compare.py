"""One table of the scores of several runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.evaluation.report import read_scores
from maven_jax.evaluation.tables import fits, shown
from maven_jax.progress import console, say

_RIDGE = "vs ridge"


def _short(modalities: Sequence[str]) -> str:
    """One name in full, several by their first letters: `visual`, `v a t`."""
    return modalities[0] if len(modalities) == 1 else " ".join(m[:1] for m in modalities)


def _above(scores: dict[str, Any], ridge: float) -> str:
    """How far a run's ccc is above ridge's, with a cross if it is not."""
    if scores["model"] == "ridge":
        return "–"
    gain = scores["ccc"] - ridge
    return f"{gain:+.3f}" + ("" if gain > 0 else " ✗")


# Columns of the table, and those that make way first where a terminal is narrow.
_COLUMNS = ("run", "model", "from", "parameters", "valence", "arousal", "mean", "by video", _RIDGE)
_DISPENSABLE = ("parameters", "from", "by video", "model")
_SCORES = ("ccc_valence", "ccc_arousal", "ccc", "ccc_video_mean")


def read_runs(workdirs: Sequence[Path], split: str) -> list[dict[str, Any]]:
    """The scores of some runs, in the order given; refuses scores of different sets of frames.

    Raises:
        UserError: a run was not evaluated, or on other frames than the first.
    """
    runs = [read_scores(workdir, split) for workdir in workdirs]
    first = runs[0]
    for workdir, scores in zip(workdirs, runs):
        if (scores["num_frames"], set(scores["videos"])) != (
            first["num_frames"],
            set(first["videos"]),
        ):
            raise UserError(
                f"{workdir} was scored on other frames of {split} than {workdirs[0]} "
                f"({scores['num_frames']:,} and {first['num_frames']:,}): not comparable"
            )
    return runs


def comparison(
    workdirs: Sequence[Path], runs: Sequence[dict[str, Any]], split: str, without: Sequence[str]
) -> Table:
    """The runs as rows, in the order given.

    With a run of ridge among them, a last column says how far each is above it: what does not beat
    a straight line is no better for being a network.

    Args:
        workdirs: of the runs.
        runs: from `read_runs`.
        split: that was scored.
        without: columns to leave out.
    """
    ridge = next((scores["ccc"] for scores in runs if scores["model"] == "ridge"), None)
    rows = [
        {
            "run": workdir.name,
            "model": scores["model"],
            "from": _short(scores["modalities"]),
            "parameters": f"{scores['num_parameters']:,}",
            **dict(zip(_COLUMNS[4:], (shown(scores[key]) for key in _SCORES))),
            _RIDGE: "" if ridge is None else _above(scores, ridge),
        }
        for workdir, scores in zip(workdirs, runs)
    ]
    table = Table(title=f"CCC on {split}", title_justify="left", padding=(0, 1, 0, 0))
    columns = [c for c in _COLUMNS if c not in without and (ridge is not None or c != _RIDGE)]
    for name in columns:
        side = "left" if name in _COLUMNS[:3] else "right"
        table.add_column(name, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def main(argv: list[str]) -> int:
    """`maven-jax compare`."""
    p = Parser(
        prog="maven-jax compare",
        description="The scores of several workdirs side by side. CCC is over all annotated frames "
        "of the split concatenated; the last column is the mean of each video's.",
    )
    p.add_argument(
        "workdirs", nargs="+", type=local_path, metavar="WORKDIR", help="folders of runs"
    )
    p.add_argument("--split", default="validation", help="which evaluation (default: validation)")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = p.parse_args(argv)
    runs = read_runs(args.workdirs, args.split)
    if args.json:
        rows = [
            {"workdir": str(workdir), **{k: v for k, v in scores.items() if k != "videos"}}
            for workdir, scores in zip(args.workdirs, runs)
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    left_out: list[str] = []
    table = comparison(args.workdirs, runs, args.split, left_out)
    # A file takes lines of any length.
    screen = console.is_terminal or console.width < 100
    while screen and not fits(table) and len(left_out) < len(_DISPENSABLE):
        left_out.append(_DISPENSABLE[len(left_out)])
        table = comparison(args.workdirs, runs, args.split, left_out)
    console.print(table)
    scores = runs[0]
    say(f"{scores['num_frames']:,} annotated frames of {scores['num_videos']} videos")
    if left_out:
        say(f"note: no room for {', '.join(left_out)}; --json has all, and so has a wider terminal")
    if not any(run["model"] == "ridge" for run in runs):
        say("note: no ridge among them; `maven-jax train --config ridge` makes what is to beat")
    if scores["untrained_encoders"]:
        say(f"note: untrained encoders ({', '.join(scores['untrained_encoders'])})")
    return 0
