"""What evaluations wrote of several runs: the tables of their videos, compared with each other."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Adjustment, Calibration, as_widths
from maven_jax.evaluation.report import read_scores
from maven_jax.inputs import read_file
from maven_jax.runs.evaluate import calibration_of
from maven_jax.runs.workdir import read_record
from maven_jax.types import DIMENSIONS

# The CSVs are rounded: targets of the same annotation differ by no more.
_SAME = 2e-6


@dataclass
class VideoTable:
    """What an evaluation wrote about one video.

    Attributes:
        time_s: of its frames.
        predictions: dimension -> (n,), of those that the run predicts.
        targets: (n, 2); 0 where not annotated.
        target_mask: (n,) annotated frames.
    """

    time_s: Float64[np.ndarray, "n"]
    predictions: dict[str, Float64[np.ndarray, "n"]]
    targets: Float[np.ndarray, "n 2"]
    target_mask: Bool[np.ndarray, "n"]


def read_table(path: Path) -> VideoTable:
    """Reads the CSV of a video; columns of extra targets, behind the others, are passed over.

    Raises:
        UserError: not a CSV that an evaluation wrote; names file and line.
    """
    columns = ("frame", "time_s", *DIMENSIONS, *(f"target_{d}" for d in DIMENSIONS))
    text = read_file(path, "the predictions of an evaluation").decode("utf-8", "replace")
    reader = csv.reader(text.splitlines())
    try:
        names = tuple(next(reader, ()))
        if names[: len(columns)] != columns:
            raise ValueError(f"not the columns {', '.join(columns)}")
        rows = [_numbers(row, len(columns), len(names)) for row in reader]
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path}:{reader.line_num}: {error}") from None
    table = np.array(rows, np.float64).reshape(-1, len(columns))
    predictions = {d: table[:, 2 + i] for i, d in enumerate(DIMENSIONS)}
    mask = ~np.isnan(table[:, 4:].sum(1))
    return VideoTable(
        time_s=table[:, 1],
        predictions={d: x for d, x in predictions.items() if not np.isnan(x).any()},
        targets=np.where(mask[:, None], table[:, 4:], 0.0).astype(np.float32),
        target_mask=mask,
    )


def _numbers(row: Sequence[str], columns: int, all_columns: int) -> list[float]:
    """The numbers in a row's first columns, NaN for empty cells.

    Raises:
        ValueError: other cells, or another count of them.
    """
    values = [float(cell) if cell else None for cell in row[:columns]]
    if not all(value is None or np.isfinite(value) for value in values):
        raise ValueError("a value is not a finite number")
    if len(row) != all_columns:
        raise ValueError(f"{len(row)} columns, not {all_columns}")
    return [np.nan if value is None else value for value in values]


def read_run(workdir: Path, split: str) -> tuple[dict[str, Any], dict[str, VideoTable]]:
    """What an evaluation of a split wrote: its scores, and file name -> table, by video.

    Raises:
        UserError: the split was not evaluated in this workdir, or a file is damaged.
    """
    scores = read_scores(workdir, split)
    files = sorted((workdir / "eval" / split).glob("*.csv"))
    tables = {file.stem: read_table(file) for file in files}
    for name, table in tables.items():
        missing = [d for d in scores["dimensions"] if d not in table.predictions]
        if missing:
            raise UserError(
                f"{workdir}/eval/{split}/{name}.csv: frames without {', '.join(missing)}"
            )
    return scores, tables


def check_same(
    workdir: Path, tables: Mapping[str, VideoTable], first: Path, others: Mapping[str, VideoTable]
) -> None:
    """Raises UserError unless two runs predicted the same frames of the same videos.

    Frames annotated differently are refused too: they come from another corpus.
    """
    different = sorted(tables.keys() ^ others.keys())
    if different:
        who = workdir if different[0] in tables else first
        raise UserError(
            f"{workdir} and {first} predict different videos ({len(different)} of them, the "
            f"first, {different[0]}, only in {who}); runs of different folds have a split in "
            "common that none of them trains on: --split test"
        )
    for name, table in tables.items():
        other = others[name]
        if len(table.time_s) != len(other.time_s):
            raise UserError(
                f"{name} has {len(table.time_s):,} frames in {workdir} and "
                f"{len(other.time_s):,} in {first}"
            )
        if (table.target_mask != other.target_mask).any() or (
            np.abs(table.targets - other.targets) > _SAME
        ).any():
            raise UserError(f"{name} is annotated differently in {workdir} and in {first}")


def read_runs(
    workdirs: Sequence[Path], split: str, calibrated: bool
) -> tuple[list[dict[str, Any]], list[dict[str, VideoTable]], list[Calibration | None]]:
    """Scores, tables and calibrations of several runs that predicted the same frames.

    Args:
        workdirs: of the runs.
        split: that was evaluated.
        calibrated: whether each run's tracks take the calibration that was tuned on its step.

    Raises:
        UserError: as `read_run`, `check_same` and `tuned_for`.
    """
    read = [read_run(workdir, split) for workdir in workdirs]
    written, tables = [r[0] for r in read], [r[1] for r in read]
    for workdir, table in zip(workdirs[1:], tables[1:]):
        check_same(workdir, table, workdirs[0], tables[0])
    calibrations: list[Calibration | None] = [None] * len(workdirs)
    if calibrated:
        calibrations = [tuned_for(w, scores) for w, scores in zip(workdirs, written)]
    tables = [
        own if how is None else {name: _calibrated(table, how) for name, table in own.items()}
        for own, how in zip(tables, calibrations)
    ]
    return written, tables, calibrations


def tuned_for(workdir: Path, scores: Mapping[str, Any]) -> Calibration | None:
    """The calibration of the step that an evaluation scored; None if nothing was tuned on it.

    Raises:
        UserError: the predictions that it would change were written with the recipe's filters.
    """
    step = scores["step"]
    calibration = None if step is None else calibration_of(workdir, step)
    if calibration is not None:
        widths = as_widths(tuple(read_record(workdir)[0].eval.smooth_frames), "smooth_frames")
        if any(width > 1 for width in widths):
            raise UserError(
                f"{workdir}: its evaluation wrote tracks smoothed by the recipe, and the "
                "calibration takes the place of that; join such runs by `submit`, or as they are"
            )
    return calibration


def _calibrated(table: VideoTable, calibration: Calibration) -> VideoTable:
    """The tracks of a video, calibrated."""
    steps = np.diff(table.time_s)
    fps = 1 / float(np.median(steps)) if len(steps) else 0.0
    by_name: dict[str, Adjustment] = dict(zip(DIMENSIONS, calibration.adjustments))
    predictions = {
        d: by_name[d](x.astype(np.float32), fps).astype(np.float64)
        for d, x in table.predictions.items()
    }
    return dataclasses.replace(table, predictions=predictions)
