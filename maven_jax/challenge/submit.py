"""The challenge's file from one run or several, and the check of any such file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from maven_jax.challenge.ensemble import (
    EQUAL,
    METHODS,
    check_weights,
    combine,
    say_weights,
    weights_of,
)
from maven_jax.challenge.evaluated import VideoTable
from maven_jax.challenge.template import (
    Template,
    check_submission,
    labelled_videos,
    write_submission,
)
from maven_jax.errors import UserError, listing
from maven_jax.evaluation.calibration import (
    Adjustments,
    adjusted,
    as_widths,
    fill_gaps,
    filters,
    in_words,
)
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.tables import print_scores
from maven_jax.outputs import OutputFile
from maven_jax.progress import say
from maven_jax.recipes import from_json
from maven_jax.runs.predict_split import open_features, predict_split
from maven_jax.runs.trained_model import TrainedModel, open_model
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry
from maven_jax.types import DIMENSIONS

Labels = dict[str, tuple[np.ndarray, np.ndarray]]
_BLOCK_FRAMES = 10_000


@dataclass
class Predicted:
    """What one run predicts of the template's videos.

    Attributes:
        tables: video -> its calibrated track.
        labels: video -> targets and which frames are annotated, for videos that have any.
        filled: frames in which nothing was observed; they take values from their neighbours.
    """

    tables: dict[str, VideoTable]
    labels: Labels
    filled: int


@dataclass
class Filled:
    """Counts of rows that do not hold a prediction of their own frame.

    Attributes:
        unobserved: frames without face, sound and words: interpolated between neighbours.
        beyond: rows behind the last frame of their video: they hold its value.
        missing: rows of videos without a prediction: they hold the training mean.
    """

    unobserved: int = 0
    beyond: int = 0
    missing: int = 0


def adjustments_of(model: TrainedModel, calibrated: str) -> tuple[Adjustments, str]:
    """What is done to a run's tracks, and where that comes from, in words.

    Args:
        model: the run's.
        calibrated: `tuned` (the recipe's box filters, if nothing was tuned), `none`, or `V,A`.

    Raises:
        UserError: none of these, or tuned on another step.
    """
    if calibrated == "none":
        return filters((0, 0)), "as given"
    if calibrated == "tuned":
        tuned = model.tuned()
        if tuned is None:
            widths = as_widths(tuple(model.config.eval.smooth_frames), "config.eval.smooth_frames")
            return filters(widths), "the recipe's"
        elsewhere = tuned.store != model.record.get("store_fingerprint")
        return tuned.adjustments, f"tuned on {tuned.split}{' of another store' * elsewhere}"
    words = [w.strip() for w in calibrated.split(",")]
    if len(words) != 2 or not all(w.isascii() and w.isdigit() for w in words):
        raise UserError(
            f"--calibrated {calibrated}: tuned, none, or frames of box filters for valence and "
            "arousal: 20,50"
        )
    return filters((int(words[0]), int(words[1]))), "as given"


def predict_run(
    model: TrainedModel, store: Store, template: Template, adjustments: Adjustments
) -> Predicted:
    """One run's predictions of the template's videos, gaps filled, calibrated.

    Raises:
        UserError: the store has none of the videos.
    """
    splits = [s for s in store.splits if any(e.video in template.rows for e in store.videos(s))]
    if not splits:
        first = next(iter(template.rows))
        raise UserError(
            f"{store.path}: holds none of the {len(template.rows)} videos of {template.path} "
            f"({first!r}, …); `maven-jax prepare` stores those of the challenge's test list"
        )
    modalities = tuple(model.config.data.modalities)
    predicted = Predicted({}, {}, 0)
    # The template says which videos count: the splits are the store's, even for the run of a fold.
    config = from_json(model.config.to_dict())
    config.data.fold = None
    whole = dataclasses.replace(model, config=config)
    videos = [video for split in splits for video in predict_split(whole, split, store)]
    for video in videos:
        name = video.entry.video
        if name not in template.rows:
            continue
        observed = observed_frames(store, video.entry, modalities)
        predicted.filled += int((~observed).sum())
        columns = [fill_gaps(video.predictions[:, i], observed) for i in range(2)]
        values = adjusted(np.stack(columns, 1), video.entry.fps, adjustments)
        predicted.tables[name] = VideoTable(
            time_s=np.zeros(len(values)),
            predictions={d: values[:, DIMENSIONS.index(d)].astype(float) for d in model.dimensions},
            targets=video.targets,
            target_mask=video.target_mask,
        )
        if video.target_mask.any():
            predicted.labels[name] = (video.targets, video.target_mask)
    return predicted


def observed_frames(
    store: Store, entry: VideoEntry, modalities: tuple[str, ...]
) -> Bool[np.ndarray, "n"]:
    """The frames of a video in which at least one of these modalities was observed."""
    n = entry.num_frames
    if any(entry.observed[m] == n for m in modalities):
        return np.ones(n, bool)
    parts = []
    for start in range(0, n, _BLOCK_FRAMES):
        frames = store.read(entry, start, min(start + _BLOCK_FRAMES, n), modalities)
        parts.append(np.any([frames.masks[m] for m in modalities], 0))
    return np.concatenate(parts)


def join(
    runs: Sequence[Predicted],
    template: Template,
    method: str,
    *,
    weights: Mapping[str, Float64[np.ndarray, "r"]] | None,
    allow_missing: int,
    mean: tuple[float, float],
) -> tuple[Float[np.ndarray, "n 2"], Filled]:
    """The template's rows from the runs' tracks.

    Args:
        runs: of the same frames.
        template: the rows.
        method: a key of `ensemble.METHODS`.
        weights: dimension -> of each run, in place of the method.
        allow_missing: how many of the template's videos may have no prediction.
        mean: of the training targets, for rows of those.

    Raises:
        UserError: more videos lack, the runs saw different frames, or a dimension is missing.
    """
    tables = [run.tables for run in runs]
    lacking = [v for v in template.rows if any(v not in t for t in tables)]
    if len(lacking) > allow_missing:
        raise UserError(
            f"{len(lacking)} of the {len(template.rows)} videos of {template.path} have no "
            f"prediction ({listing([repr(v) for v in lacking], 3)}); prepare them, or fill them "
            f"with the training mean by --allow-missing {len(lacking)}"
        )
    values = np.full((len(template), 2), np.nan)
    filled = Filled(unobserved=max(run.filled for run in runs))
    for video, rows in template.rows.items():
        if video in lacking:
            values[rows] = mean
            filled.missing += len(rows)
            continue
        lengths = {len(t[video].time_s) for t in tables}
        if len(lengths) > 1:
            counts = " and ".join(f"{n:,}" for n in sorted(lengths))
            raise UserError(f"{video} has {counts} frames in the runs' stores: not the same store")
        (length,) = lengths
        joined = combine(tables, METHODS[method], video, weights)
        absent = [d for d in DIMENSIONS if d not in joined]
        if absent:
            raise UserError(f"no run predicts {absent[0]}; add one that does by --workdir")
        frames = template.frames[rows]
        filled.beyond += int((frames >= length).sum())
        frames = np.minimum(frames, length - 1)
        values[rows] = np.stack([joined[d][frames] for d in DIMENSIONS], 1)
    return values, filled


def submit(
    workdirs: Sequence[Path],
    template: Template,
    out: Path,
    *,
    force: bool,
    store: str | None,
    which: str,
    calibrated: str,
    method: str,
    weights: str,
    allow_missing: int,
) -> Labels:
    """Writes the submission of one run or the ensemble of several; says what was filled.

    Returns:
        The labels that the store has of the template's videos.

    Raises:
        UserError: see `join`, a run that cannot be opened, or `out` is not ours to replace.
    """
    check_weights(weights, method)
    purpose, inputs = os.path.realpath(template.path), [template.path, *workdirs]
    file = OutputFile(out, "submit", purpose, inputs=inputs, force=force)
    runs, models = [], []
    for workdir in workdirs:
        model = open_model(workdir, which)
        adjustments, why = adjustments_of(model, calibrated)
        features = open_features(model, store)
        say(f"{workdir}: step {model.step}; {in_words(adjustments)} ({why})")
        runs.append(predict_run(model, features, template, adjustments))
        models.append(model)
    by_dimension = None
    if weights != EQUAL:
        told = [{"step": m.step, "dimensions": list(m.dimensions)} for m in models]
        tuned = calibrated == "tuned"
        chosen = weights_of(workdirs, weights, told, tuned)
        say_weights(workdirs, chosen, tuned)
        by_dimension = chosen.by_dimension
    values, filled = join(
        runs,
        template,
        method,
        weights=by_dimension,
        allow_missing=allow_missing,
        mean=models[0].trained_on.target_mean,
    )
    with file.writing() as path:
        write_submission(path, template, values)
    say(f"{out}: {len(template):,} rows of {len(template.rows)} videos, in the template's order")
    for count, rule in (
        (filled.unobserved, "frames show no modality: interpolated between their neighbours"),
        (filled.beyond, "rows are behind the last frame of their video: its value is held"),
        (filled.missing, "rows are of videos without prediction: the training mean"),
    ):
        say(f"filled: {count:,} {rule}")
    for model in models:
        model.say_label()
    return {v: labels for run in runs for v, labels in run.labels.items()}


def check(path: Path, template: Template, labels: Mapping[str, Any]) -> int:
    """Prints what is wrong with a submission, and its scores where there are labels.

    Returns:
        How many kinds of faults it has.
    """
    checked = check_submission(path, template)
    for fault in checked.faults:
        say(f"{path}: {fault}")
    videos = labelled_videos(template, checked.values, labels)
    if sum(video.target_mask.sum() for video in videos):
        scores, _ = score(videos)
        print_scores(scores, f"{path.name} on the annotated rows")
    else:
        say("no labels for these rows: nothing to score")
    if not checked.faults:
        say(f"{path}: as the template wants it, {len(template):,} rows")
    return len(checked.faults)


def read_labels(folder: Path, template: Template) -> Labels:
    """The annotations `<video>.txt` of the template's videos, anywhere below a folder.

    Raises:
        UserError: no such folder, or none of the videos is annotated in it.
    """
    from maven_jax.media.annotations import read_annotation

    if not folder.is_dir():
        raise UserError(f"--annotations {folder}: no such folder")
    labels = {}
    for path in sorted(folder.rglob("*.txt")):
        if path.stem in template.rows and path.stem not in labels:
            annotation = read_annotation(path)
            labels[path.stem] = (annotation.values, annotation.valid)
    if not labels:
        raise UserError(f"--annotations {folder}: no <video>.txt of a video of {template.path}")
    return labels
