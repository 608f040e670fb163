"""One table of the scores of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.evaluation.report import read_scores
from maven_jax.evaluation.tables import shown
from maven_jax.progress import console, say


def _short(modalities: Sequence[str]) -> str:
    """One name in full, several by their first letters: `visual`, `v a t`."""
    return modalities[0] if len(modalities) == 1 else " ".join(m[:1] for m in modalities)


def _above(scores: dict[str, Any], ridge: float) -> str:
    """How far a run's ccc is above ridge's, with a cross if it is not."""
    if scores["model"] == "ridge":
        return "–"
    gain = scores["ccc"] - ridge
    return f"{gain:+.3f}" + ("" if gain > 0 else " ✗")


def comparison(workdirs: Sequence[Path], split: str) -> Table:
    """The runs as rows, in the order given; refuses scores of different sets of frames.

    With a run of ridge among them, a last column says how far each is above it: what does not beat
    a straight line is no better for being a network.

    Raises:
        UserError: a run was not evaluated, or on other frames than the first.
    """
    table = Table(title=f"CCC on {split}", title_justify="left", padding=(0, 1, 0, 0))
    for name, side in (
        ("run", "left"),
        ("model", "left"),
        ("from", "left"),
        ("parameters", "right"),
        ("valence", "right"),
        ("arousal", "right"),
        ("mean", "right"),
        ("by video", "right"),
    ):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    runs = [(workdir, read_scores(workdir, split)) for workdir in workdirs]
    first: dict[str, Any] = runs[0][1]
    ridge = next((scores["ccc"] for _, scores in runs if scores["model"] == "ridge"), None)
    if ridge is not None:
        table.add_column("vs ridge", justify="right", no_wrap=True)
    for workdir, scores in runs:
        if (scores["num_frames"], set(scores["videos"])) != (
            first["num_frames"],
            set(first["videos"]),
        ):
            raise UserError(
                f"{workdir} was scored on other frames of {split} than {workdirs[0]} "
                f"({scores['num_frames']:,} and {first['num_frames']:,}): not comparable"
            )
        table.add_row(
            workdir.name,
            scores["model"],
            _short(scores["modalities"]),
            f"{scores['num_parameters']:,}",
            *(shown(scores[k]) for k in ("ccc_valence", "ccc_arousal", "ccc", "ccc_video_mean")),
            *([] if ridge is None else [_above(scores, ridge)]),
        )
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
    args = p.parse_args(argv)
    table = comparison(args.workdirs, args.split)
    console.print(table)
    scores = read_scores(args.workdirs[0], args.split)
    say(f"{scores['num_frames']:,} annotated frames of {scores['num_videos']} videos")
    if "vs ridge" not in [column.header for column in table.columns]:
        say("note: no ridge among them; `maven-jax train --config ridge` makes what is to beat")
    if scores["untrained_encoders"]:
        say(f"note: untrained encoders ({', '.join(scores['untrained_encoders'])})")
    return 0
