"""Scores as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.measure import Measurement
from rich.table import Table

from maven_jax.progress import console, say


def shown(score: float | int | None) -> str:
    """A score as tables show it; a dash for one that there is not."""
    return "–" if score is None else f"{score:.3f}"


def shown_interval(ends: Sequence[float] | None) -> str:
    """The ends of an interval as tables show them; a dash for one that there is not."""
    return "–" if ends is None else f"{shown(ends[0])} to {shown(ends[1])}"


def fits(table: Table) -> bool:
    """Whether a table is no wider than the screen when nothing in it is wrapped or cut."""
    unbounded = console.options.update(width=10_000, max_width=10_000)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """The scores of a split as a table on screen; in short words where it is narrow."""
    table = _table(scores, title, short=False)
    table = table if fits(table) else _table(scores, title, short=True)
    console.print(table)
    say(f"{scores['num_frames']:,} annotated frames of {scores['num_videos']} videos")
    calibrated = scores.get("calibrated")
    if calibrated is not None and calibrated["chosen_on_it"]:
        say("the calibration was chosen on these videos, so its score flatters")


def _table(scores: Mapping[str, Any], title: str, *, short: bool) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "valence", "arousal", "mean"):
        table.add_column(column, justify="left" if not column else "right")
    for label, in_short, of, key, suffix in (
        ("CCC, all frames concatenated", "CCC, all frames", scores, "ccc", ""),
        ("CCC, calibrated", "CCC, calibrated", scores.get("calibrated"), "ccc", ""),
        ("CCC, mean over videos", "CCC, by video", scores, "ccc", "_video_mean"),
        ("PCC", "PCC", scores, "pcc", ""),
        ("RMSE", "RMSE", scores, "rmse", ""),
    ):
        if of is None:
            continue
        values = (of[f"{key}{d}{suffix}"] for d in ("_valence", "_arousal", ""))
        table.add_row(in_short if short else label, *map(shown, values))
        interval = scores.get("ccc_interval")
        if of is scores and (key, suffix) == ("ccc", "") and interval is not None:
            ends = [interval[f"ccc{d}"] for d in ("_valence", "_arousal", "")]
            recordings = f"{interval['recordings']:,} recordings"
            level = f"  {interval['level']:.0%}"
            if short:
                texts = ["–" if e is None else f"{e[0]:.2f}–{e[1]:.2f}" for e in ends]
                table.add_row(f"{level}, {recordings}", *texts)
            else:
                table.add_row(f"{level}, by {recordings}", *map(shown_interval, ends))
    return table
