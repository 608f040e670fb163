"""The calibration of a run: tuned, shown, and written into its workdir."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from maven_jax.challenge.tune import MIN_RECORDINGS, Grid, Tuned, tune
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import (
    CALIBRATION_FILE,
    UNCHANGED,
    Adjustment,
    Calibration,
)
from maven_jax.evaluation.tables import shown
from maven_jax.experiment import Experiment
from maven_jax.files import write_json
from maven_jax.outputs import OutputFile
from maven_jax.progress import console, say
from maven_jax.recipes import from_json
from maven_jax.runs.bundle import is_bundle
from maven_jax.runs.predict_split import open_features, predict_split
from maven_jax.runs.trained_model import TrainedModel, open_model
from maven_jax.store.reader import Store
from maven_jax.types import DIMENSIONS

_IN_WORDS = {"delay": "delay", "smoothing": "smoothing", "spread": "mean and spread"}


@dataclass(frozen=True)
class Tried:
    """What `calibrate` tries.

    Attributes:
        steps: some of `tune.STEPS`.
        delays_s: seconds; 0 is always among them.
        widths: frames; 0 is always among them.
    """

    steps: Sequence[str]
    delays_s: Sequence[float]
    widths: Sequence[int]


def calibrate(
    workdir: Path,
    tried: Tried,
    *,
    which: str,
    split: str | None,
    store: str | None,
    force: bool = False,
) -> dict[str, Tuned]:
    """Tunes, prints tables, writes `calibration.json` into the workdir.

    Args:
        workdir: of a run.
        tried: steps and values.
        which: `best`, `latest` or a step.
        split: of the store; None for the run's evaluation split.
        store: its features; None for the run's own.
        force: whether to replace a `calibration.json` of other origin.

    Returns:
        Dimension -> its calibration and the scores.

    Raises:
        UserError: no run (a bundle is none), or a split without annotations.
    """
    if is_bundle(workdir):
        raise UserError(f"{workdir}: a bundle is not changed; tune its run, then export it again")
    out = OutputFile(workdir / CALIBRATION_FILE, "tune", "this run", force=force)
    model = open_model(workdir, which)
    features = open_features(model, store)
    split = str(split or model.config.data.eval_split)
    videos = [v for v in predict_split(model, split, features) if v.target_mask.any()]
    if not videos:
        raise UserError(f"{split} has no annotations to tune on; --split takes another one")
    labels = _training_labels(model, features) if "spread" in tried.steps else None
    recordings = [v.entry.stem for v in videos]
    delays_s, widths = sorted({0.0, *tried.delays_s}), sorted({0, *tried.widths})
    tunings = {}
    for name in model.dimensions:
        column = DIMENSIONS.index(name)
        mean, std = (np.nan, np.nan) if labels is None else (x[column] for x in labels)
        grid = Grid(delays_s, widths, float(mean), float(std))
        tunings[name] = tune(videos, column, grid, recordings, tried.steps)
        console.print(_table(tunings[name], f"{name}: CCC on {split}, step {model.step}"))
        _say_limits(name, tunings[name].how, delays_s, widths)
    valence, arousal = (tunings[d].how if d in tunings else UNCHANGED for d in DIMENSIONS)
    chosen = Calibration((valence, arousal), model.step, split, features.fingerprint)
    details = {d: _details(t) for d, t in tunings.items()}
    with out.writing() as path:
        write_json(path, {**chosen.to_json(), "scores": details})
    if any(model.config.eval.smooth_frames):
        say("note: the calibration takes the place of the recipe's eval.smooth_frames")
    model.say_label()
    say(f"written: {out.path}; `evaluate`, `predict --calibrated`, `submit` and `export` take it")
    say(_expectation(tunings, split))
    return tunings


def _training_labels(model: TrainedModel, features: Store) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and standard deviation of the run's training labels, (2,) each; None if not known."""
    recorded, own = model.config.data.store, model.record.get("store_fingerprint")
    store = features
    if own not in (None, features.fingerprint):
        store = Store(recorded) if Path(recorded).exists() else None
    if store is None or own not in (None, store.fingerprint):
        say(
            "note: the store that the run was trained on is not there, so its labels' mean and "
            "spread are not known: this step is left out"
        )
        return None
    moments = Experiment(from_json(model.config.to_dict()), store).moments["targets"]
    return (moments.mean, moments.std) if moments.count else None


def _table(tuned: Tuned, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("chosen")
    table.add_column("chosen on it", justify="right")
    table.add_column("left out", justify="right")
    table.add_column("")
    table.add_row("raw", "", shown(tuned.raw), shown(tuned.raw), "")
    for trial in tuned.trials:
        how = str(trial.how)
        scores = shown(trial.chosen_on_it), shown(trial.left_out)
        dropped = "no gain beside the others" if trial.gained else "no gain"
        end = "kept" if trial.kept else dropped
        table.add_row(f"+ {_IN_WORDS[trial.step]}", how, *scores, end)
    expected = None if np.isnan(tuned.expected) else tuned.expected
    table.add_row("calibrated", str(tuned.how), shown(tuned.calibrated), shown(expected), "")
    return table


def _say_limits(
    name: str, how: Adjustment, delays_s: Sequence[float], widths: Sequence[int]
) -> None:
    """Says where the end of what was tried is the best."""
    for value, values, option in (
        (how.delay_s, delays_s, "--delays"),
        (how.frames, widths, "--widths"),
    ):
        if value and value == values[-1]:
            say(f"{name}: {value:g} is the largest one tried; {option} beyond it may be better")


def _expectation(tunings: Mapping[str, Tuned], split: str) -> str:
    """The last line: what to expect of recordings that chose nothing."""
    if any(np.isnan(t.expected) for t in tunings.values()):
        return (
            f"{split} has fewer than {MIN_RECORDINGS} annotated recordings: what a step gains "
            "elsewhere cannot be estimated, so none is kept"
        )
    gains = [
        f"{name} {shown(t.expected)} ({t.expected - t.raw:+.3f})"
        if t.how != UNCHANGED
        else f"{name} {shown(t.raw)} as it is (choices so made give {shown(t.expected)})"
        for name, t in tunings.items()
    ]
    return (
        f"to be expected elsewhere: {', '.join(gains)}; each recording by what all others would "
        f"have chosen, the steps included. `chosen on it` is of {split} itself and flatters"
    )


def _details(tuned: Tuned) -> dict[str, Any]:
    """The scores of one dimension, for the file."""
    return {
        "ccc_raw": tuned.raw,
        "ccc_calibrated": tuned.calibrated,
        "ccc_expected": None if np.isnan(tuned.expected) else tuned.expected,
        "steps": [t.step for t in tuned.trials if t.kept and tuned.how != UNCHANGED],
    }
