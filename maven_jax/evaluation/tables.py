"""Scores as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from maven_jax.progress import console, say


def shown(score: float | int | None) -> str:
    """A score as tables show it; a dash for one that there is not."""
    return "–" if score is None else f"{score:.3f}"


def shown_interval(ends: Sequence[float] | None) -> str:
    """The ends of an interval as tables show them; a dash for one that there is not."""
    return "–" if ends is None else f"{shown(ends[0])} to {shown(ends[1])}"


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """The scores of a split as a table on screen."""
    table = Table(title=title, title_justify="left")
    for column in ("", "valence", "arousal", "mean"):
        table.add_column(column, justify="left" if not column else "right")
    calibrated = scores.get("calibrated")
    for label, of, key, suffix in (
        ("CCC, all frames concatenated", scores, "ccc", ""),
        ("CCC, calibrated", calibrated, "ccc", ""),
        ("CCC, mean over videos", scores, "ccc", "_video_mean"),
        ("PCC", scores, "pcc", ""),
        ("RMSE", scores, "rmse", ""),
    ):
        if of is None:
            continue
        values = (of[f"{key}{d}{suffix}"] for d in ("_valence", "_arousal", ""))
        table.add_row(label, *map(shown, values))
        interval = scores.get("ccc_interval")
        if of is scores and (key, suffix) == ("ccc", "") and interval is not None:
            ends = (interval[f"ccc{d}"] for d in ("_valence", "_arousal", ""))
            label = f"  {interval['level']:.0%}, by {interval['recordings']:,} recordings"
            table.add_row(label, *map(shown_interval, ends))
    console.print(table)
    say(f"{scores['num_frames']:,} annotated frames of {scores['num_videos']} videos")
    if calibrated is not None and calibrated["chosen_on_it"]:
        say("the calibration was chosen on these videos, so its score flatters")
