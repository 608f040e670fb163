"""Scoring a trained model on a split: CCC, per-video predictions, plots."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from maven_jax.evaluation.bootstrap import ccc_interval
from maven_jax.evaluation.calibration import (
    Calibration,
    as_widths,
    box_filter,
    read_calibration,
)
from maven_jax.evaluation.extra_scores import describe_extra, score_extra
from maven_jax.evaluation.labels import with_labels
from maven_jax.evaluation.report import frame_times, report_of, write_report
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.tables import print_scores
from maven_jax.experiment import Experiment, check_features, open_store
from maven_jax.outputs import Product
from maven_jax.progress import say, timed
from maven_jax.recipes import Config
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import read_metrics
from maven_jax.runs.workdir import held_out, read_record
from maven_jax.runtime import hosts
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.state import Weights, count_parameters, put_weights
from maven_jax.store.reader import Store


def evaluate(
    workdir: Path | str,
    split: str,
    *,
    which: str = "best",
    store: str | None = None,
    labels: Path | None = None,
    watchdog: Watchdog | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Evaluates a checkpoint of a run, writes `eval/<split>…` and plots, prints the table.

    The scores are those of the predictions as the recipe makes them; `calibrated` holds those after
    the calibration of `maven-jax tune`, if it was tuned on this step.

    For another store than the run's own the files are `eval/<split>@<store's folder>…`: the scores
    that the run is compared and described by stay.

    Args:
        workdir: of the run.
        split: of the store.
        which: `best` (on the run's evaluation split), `latest` or a step.
        store: another store with the same modalities; None for the run's own.
        labels: folder of annotations, see `with_labels`; None for the store's own or, if it has
            none of the split, those that the recipe names.
        watchdog: is told of progress; None for nobody.
        force: whether to replace files that no evaluation of this split wrote.

    Returns:
        What `eval/<split>.json` holds, without the scores of single videos.

    Raises:
        UserError: no run, no such checkpoint, no such split, features of another kind, or
            another process evaluates the same.
    """
    workdir, watchdog = Path(workdir), watchdog or Watchdog(math.inf)
    config, record = read_record(workdir)
    # Tracks are calibrated as the model gives them, so the recipe's filters come afterwards.
    widths = as_widths(tuple(config.eval.smooth_frames), "config.eval.smooth_frames")
    config.eval.smooth_frames = (0, 0)
    features = open_store(config.data.store, store)
    experiment = Experiment(config, features).on_this_machine()
    # Released weights come without the statistics and names of the features they were trained on.
    released = record.get("statistics") == "store"
    check_features(features, record["features"], identity=not released)
    foreign = record["store_fingerprint"] not in (None, features.fingerprint)
    if not foreign:
        experiment.check_held_out(held_out(record))
    step, weights, shardings = _weights(workdir, which, experiment, released)
    calibration = calibration_of(workdir, step)
    predictor = experiment.predictor(split, shardings, extra=True)
    name = f"{split}@{features.path.resolve().name}" if foreign else split
    with hosts.alone_as_writer(workdir, f"evaluate-{name}"):
        report = report_of(workdir, name, "evaluate", force)
        with jax.set_mesh(experiment.mesh):
            with timed("compiling the prediction step"), watchdog.paused("compiling"):
                predictor.compile(weights)
            evaluating = functools.partial(watchdog.beat, step, "evaluating")
            label = f"evaluating {split} with step {step}"
            unsmoothed = predictor(weights, label=label, beat=evaluating)
        if labels is None and not any(video.target_mask.any() for video in unsmoothed):
            labels = _recorded_labels(config, split, [v.entry.video for v in unsmoothed])
        if labels is not None:
            unsmoothed = with_labels(unsmoothed, labels)
        videos = [
            dataclasses.replace(v, predictions=box_filter(v.predictions, widths))
            for v in unsmoothed
        ]
        scores, by_video = _scores(videos, experiment)
        scores |= {
            "split": split,
            "step": step,
            "chosen_by": _chosen_by(workdir, which, config.data.eval_split),
            "labels": None if labels is None else str(labels),
            "num_parameters": count_parameters(weights.params),
        }
        if calibration is not None:
            scores["calibrated"] = _calibrated(
                unsmoothed, calibration, experiment.dimensions, split, features, labels is None
            )
        watchdog.pause("writing the report")
        if hosts.is_writer():
            _write(report, name, features, videos, scores, by_video)
        hosts.wait_for_first()  # nobody goes on before it is written
    return scores


def _weights(
    workdir: Path, which: str, experiment: Experiment, released: bool
) -> tuple[int, Weights, Any]:
    """The step that `which` means, its weights and their shardings."""
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    step = checkpoints.resolve(which)
    fresh, shardings = experiment.fresh_weights()
    if released:
        names = experiment.transform.by_store(experiment.modalities)
        if names:
            verb = "is" if len(names) == 1 else "are"
            statistics = f"the training statistics of {experiment.store.path}"
            say(f"{', '.join(names)} {verb} standardised by {statistics}")
        weights = put_weights(fresh, checkpoints.read_weights(step), "/", str(workdir))
    else:
        weights = checkpoints.restore_weights(step, fresh)
    checkpoints.close()
    return step, weights, shardings


def _scores(
    videos: list[PredictedVideo], experiment: Experiment
) -> tuple[dict[str, Any], np.ndarray]:
    """Scores of the tracks with what the experiment is, and the scores of each video."""
    config, modalities = experiment.config, experiment.modalities
    scores, by_video = score(videos, experiment.dimensions)
    scores |= {
        "ccc_interval": ccc_interval(videos, experiment.dimensions),
        "dimensions": list(experiment.dimensions),
        "fold": config.data.fold,
        "model": config.model.name,
        "modalities": list(modalities),
        "untrained_encoders": [m for m, spec in modalities.items() if spec.untrained],
    }
    if extra := score_extra(videos):
        scores["extra_targets"] = extra
    return scores, by_video


def _recorded_labels(config: Config, split: str, videos: list[str]) -> Path | None:
    """The folder of labels that the recipe names for a split, if it has any of these videos'."""
    folder = config.eval.labels.get(split)
    if folder is None:
        return None
    if any((Path(folder) / f"{video}.txt").is_file() for video in videos):
        return Path(folder)
    what = "has no labels for these videos" if Path(folder).is_dir() else "is not there"
    say(f"config.eval.labels.{split}: {folder} {what}; --labels names another folder")
    return None


def _chosen_by(workdir: Path, which: str, split: str) -> dict[str, Any] | None:
    """The split whose scores chose a step, and how many it chose from; None if nothing did."""
    if which != "best":
        return None
    looks = len({row["step"] for row in read_metrics(workdir) if row["kind"] == split})
    return {"split": split, "looks": looks} if looks > 1 else None


def calibration_of(workdir: Path, step: int) -> Calibration | None:
    """What was tuned on a step of a run; None if nothing was."""
    calibration = read_calibration(workdir)
    if calibration is None or calibration.step == step:
        return calibration
    say(f"note: the calibration was tuned on step {calibration.step}, so not scored on step {step}")
    return None


def _calibrated(
    videos: list[PredictedVideo],
    calibration: Calibration,
    dimensions: tuple[str, ...],
    split: str,
    features: Store,
    own_labels: bool,
) -> dict[str, Any]:
    """The scores after a calibration, what it does, and whether these very labels chose it."""
    tracks = [
        dataclasses.replace(v, predictions=calibration(v.predictions, v.entry.fps)) for v in videos
    ]
    scores, _ = score(tracks, dimensions)
    chosen_on = (calibration.split, calibration.store)
    itself = own_labels and chosen_on == (split, features.fingerprint)
    return {
        **{k: v for k, v in scores.items() if k.startswith("ccc")},
        "chosen_on_it": itself,
        "calibration": calibration.to_json(),
    }


def _write(
    report: Product,
    name: str,
    features: Store,
    videos: list[PredictedVideo],
    scores: dict[str, Any],
    by_video: np.ndarray,
) -> None:
    """Writes the report under a name and prints the table."""
    fold, chosen_by = scores["fold"], scores["chosen_by"]
    times = [frame_times(features, video) for video in videos]
    path = write_report(report, name, videos, times, scores, by_video)
    if scores["num_frames"]:
        where = name if fold is None else f"{name} of fold {fold}"
        looks = f" (best of {chosen_by['looks']} on {chosen_by['split']})" if chosen_by else ""
        print_scores(scores, f"{scores['model']} on {where}, step {scores['step']}{looks}")
        if chosen_by and chosen_by["split"] == scores["split"] and scores["labels"] is None:
            say(
                f"note: {where} chose the step, so the score flatters; a split that chose nothing, "
                "or --checkpoint latest, says more"
            )
        for line in describe_extra(scores.get("extra_targets", {})):
            say(line)
    else:
        say(f"{name} has no annotations: predictions are written, there is nothing to score")
    if scores["untrained_encoders"]:
        names = ", ".join(scores["untrained_encoders"])
        say(f"note: features from untrained encoders ({names}); no claim beyond this corpus")
    say(f"scores: {path}; predictions: {path.with_suffix('')}; plots: {report.root / 'plots'}")
