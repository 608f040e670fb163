"""Scores as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from maven_jax.progress import console, say


def shown(score: float | int | None) -> str:
    """A score as tables show it; a dash for one that there is not."""
    return "–" if score is None else f"{score:.3f}"


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
        if of is not None:
            values = (of[f"{key}{d}{suffix}"] for d in ("_valence", "_arousal", ""))
            table.add_row(label, *map(shown, values))
    console.print(table)
    say(f"{scores['num_frames']:,} annotated frames of {scores['num_videos']} videos")
    if calibrated is not None and calibrated["chosen_on_it"]:
        say("the calibration was chosen on these videos, so its score flatters")
