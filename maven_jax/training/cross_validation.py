"""Cross-validation: a run for each fold, and one score of what no run has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from maven_jax import recipes
from maven_jax.challenge.evaluated import read_table
from maven_jax.data.folds import Cut, cut
from maven_jax.errors import UserError
from maven_jax.evaluation import plots
from maven_jax.evaluation.bootstrap import ccc_interval
from maven_jax.evaluation.report import (
    file_stem,
    frame_times,
    read_scores,
    report_of,
    write_report,
)
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.tables import print_scores, shown
from maven_jax.experiment import Experiment
from maven_jax.files import write_json
from maven_jax.inputs import read_json
from maven_jax.progress import console, say
from maven_jax.recipes import Config, check_sections
from maven_jax.runs import bundle
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.metrics import read_metrics
from maven_jax.runs.workdir import CONFIG_FILE, FINISHED_FILE, check_free, claim, read_record
from maven_jax.runtime import hosts
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.store.reader import Store
from maven_jax.training.mixing import open_mixed
from maven_jax.training.train import train
from maven_jax.types import DIMENSIONS

# What the report is called, as an evaluation's is by its split.
SPLIT = "out_of_fold"
CHOSEN_BY = "nothing, last step"


def cross_validate(
    config: Config,
    workdir: Path,
    overrides: list[str],
    *,
    watchdog: Watchdog,
    preemption: hosts.Preemption,
    force: bool = False,
) -> dict[str, Any] | None:
    """Trains on every fold, predicts what it holds out, and scores all these predictions as one.

    A fold that is finished is not trained again, and one that is not continues. Runs are in
    `fold_<k>`; the report is `eval/out_of_fold…`. Nothing chooses a step by the videos that it is
    scored on: the last step predicts, and a recipe's early stop is switched off.

    Args:
        config: a recipe that says how to cut (`data.folds`, `data.fold_groups`), but without
            `data.fold`; it is changed.
        workdir: folder of the runs and of the report.
        overrides: what was set on the command line, for the record.
        watchdog: is told of progress.
        preemption: is asked before every step whether to save and stop.
        force: whether to replace a report that no cross-validation wrote.

    Returns:
        What `eval/out_of_fold.json` holds, without single videos; None if `preemption` ended it.

    Raises:
        UserError: a recipe that is scored on what it chooses by, a store that cannot be cut, or
            runs of another recipe in the folder.
    """
    for line in _forbid_choices(config):
        say(line)
    first = fold_config(config, 0)
    check_sections(first)
    if hosts.is_writer():
        if (workdir / CONFIG_FILE).exists():
            raise UserError(f"{workdir}: is the workdir of a training run; take another --workdir")
        check_free(workdir / "fold_0", first)
    store = Store(config.data.store)
    made = cut(store, config.data.folds, config.data.fold_groups)
    configs = [fold_config(config, k) for k in range(len(made.parts))]
    folders = [fold_folder(workdir, k) for k in range(len(made.parts))]
    seen = _initial_weights_of(config, store)
    with hosts.alone_as_writer(workdir, "cross-validate"):
        report = report_of(workdir, SPLIT, "cross-validate", force)
        for folder, fold in zip(folders, configs):
            _check_same(folder, fold)
        for k, (folder, fold) in enumerate(zip(folders, configs)):
            say(f"fold {k} of 0 to {len(configs) - 1}: {folder}")
            watchdog.pause(f"beginning fold {k}")
            if not _run(fold, folder, overrides, watchdog, preemption):
                return None
        watchdog.pause("writing the report")
        scores: dict[str, Any] = {}
        if hosts.is_writer():
            experiment = Experiment.of(first)
            videos = read_predictions(folders, made, experiment.dimensions)
            scores, by_video = score(videos, experiment.dimensions)
            scores["ccc_interval"] = ccc_interval(videos, experiment.dimensions)
            scores |= _facts(config, folders, made) | {"initial_weights_saw_the_store": seen}
            times = [frame_times(store, video) for video in videos]
            path = write_report(report, SPLIT, videos, times, scores, by_video)
            _show(scores, path)
        hosts.wait_for_first()
    return scores


def fold_config(config: Config, fold: int) -> Config:
    """The recipe of one fold's run."""
    copy = recipes.from_json(config.to_dict())
    copy.data.fold = fold
    return copy


def fold_folder(workdir: Path, fold: int) -> Path:
    """The workdir of one fold's run."""
    return workdir / f"fold_{fold}"


def _forbid_choices(config: Config) -> list[str]:
    """Switches off what would choose by the held-out videos; returns lines that say so.

    Raises:
        UserError: the recipe cannot do without.
    """
    data, training = config.data, config.train
    if data.fold is not None:
        raise UserError(
            f"config.data.fold={data.fold}: a cross-validation trains on every fold; leave it out"
        )
    for key, expected in (("train_split", "train"), ("eval_split", "validation")):
        if data[key] != expected:
            raise UserError(
                f"config.data.{key}={data[key]!r}: a cross-validation cuts the splits train and "
                f"validation; leave it at {expected!r}"
            )
    if training.stages:
        raise UserError(
            "config.train.stages: each stage begins with the weights that were best on the "
            "held-out videos, so their score would flatter; set it to () to train without stages"
        )
    lines = []
    off = {"stop_patience": None, "factor": 1.0}
    words = {"stop_patience": "the early stop", "factor": "the plateau rule"}
    for key, value in off.items():
        if training.plateau.get(key, value) != value:
            lines.append(
                f"config.train.plateau.{key}={training.plateau[key]} is switched off: "
                f"{words[key]} would choose by the held-out videos"
            )
            with training.plateau.ignore_type():
                training.plateau[key] = value
    return lines


def _initial_weights_of(config: Config, store: Store) -> list[str]:
    """The folders of `train.init` whose model was trained on this store, held-out videos included.

    They are said, as a score that begins from them flatters.
    """
    folders = []
    for folder in dict.fromkeys(str(f) for f in recipes.plain(config.train.init).values() if f):
        record: Mapping[str, Any] = {}
        if bundle.is_bundle(Path(folder)):
            record = bundle.open_bundle(Path(folder)).record
        elif (Path(folder) / CONFIG_FILE).exists():
            record = read_record(Path(folder))[1]
        if record.get("store_fingerprint") == store.fingerprint:
            say(f"note: {folder} was trained on videos of this store: the score flatters")
            folders.append(folder)
    return folders


def _check_same(folder: Path, config: Config) -> None:
    """Raises UserError if a fold's folder holds a run of another recipe or on other features."""
    if (folder / CONFIG_FILE).exists():
        experiment = Experiment.of(recipes.from_json(config.to_dict()))
        claim(folder, experiment, open_mixed(experiment), [])


def _run(
    config: Config,
    folder: Path,
    overrides: list[str],
    watchdog: Watchdog,
    preemption: hosts.Preemption,
) -> bool:
    """Trains on a fold and predicts what it holds out, or what of that is still to be done.

    Returns:
        Whether it is done; False if `preemption` ended it.
    """
    split = config.data.eval_split
    finished = _finished_step(folder) if hosts.is_writer() else 0
    finished = hosts.agree(finished)
    if not finished:
        scores = train(config, folder, overrides, watchdog=watchdog, preemption=preemption)
        if scores is None:
            return False
    elif _predicted_by(folder, split) == finished:
        say(f"finished before, step {finished}")
        return True
    written = evaluate(folder, split, which=str(finished or "latest"), watchdog=watchdog)
    if hosts.is_writer():
        plots.plot_training(read_metrics(folder), split, folder / "plots" / "training.png")
        row = {"steps": written["step"], "step": written["step"], "ccc": written["ccc"]}
        write_json(folder / FINISHED_FILE, row)
    return True


def _finished_step(folder: Path) -> int:
    """The last step of a fold's run; 0 if it is not finished."""
    if not (folder / FINISHED_FILE).exists():
        return 0
    return read_json(folder / FINISHED_FILE, "the end of a run", {"steps": int})["steps"]


def _predicted_by(folder: Path, split: str) -> int | None:
    """The step that the predictions of a fold come from: somebody may have evaluated another."""
    if not (folder / "eval" / f"{split}.json").exists():
        return None
    return read_scores(folder, split)["step"]


def read_predictions(
    folders: Sequence[Path], made: Cut, dimensions: Sequence[str]
) -> list[PredictedVideo]:
    """What the runs wrote about the videos that they held out, fold by fold.

    Args:
        folders: of each fold's run, evaluated.
        made: the folds.
        dimensions: those that the runs predict; others are 0.

    Raises:
        UserError: a file is missing, or not of these videos.
    """
    videos = []
    for folder, part in zip(folders, made.parts):
        for entry in part:
            path = folder / "eval" / "validation" / f"{file_stem(entry.video)}.csv"
            table = read_table(path)
            missing = [d for d in dimensions if d not in table.predictions]
            if len(table.time_s) != entry.num_frames or missing:
                raise UserError(
                    f"{path}: expected {', '.join(dimensions)} of {entry.num_frames:,} frames; "
                    f"remove {folder / FINISHED_FILE} to predict them again"
                )
            zeros = np.zeros(entry.num_frames)
            columns = [table.predictions.get(d, zeros) for d in DIMENSIONS]
            predictions = np.stack(columns, 1).astype(np.float32)
            videos.append(PredictedVideo(entry, predictions, table.targets, table.target_mask))
    return videos


def _facts(config: Config, folders: Sequence[Path], made: Cut) -> dict[str, Any]:
    """What the report says beside the scores."""
    written = [read_scores(folder, "validation") for folder in folders]
    keys = ("step", "num_frames", "num_videos", "ccc_valence", "ccc_arousal", "ccc")
    members = [
        {"workdir": folder.name, "fold": k, **{key: scores[key] for key in keys}}
        for k, (folder, scores) in enumerate(zip(folders, written))
    ]
    same = ("dimensions", "model", "modalities", "num_parameters", "untrained_encoders")
    return {
        **{key: written[0][key] for key in same},
        "split": SPLIT,
        "fold": None,
        "step": None,
        "seed": config.seed,
        "folds": len(made.parts),
        "cut_by": _cut_by(config),
        "groups": config.data.fold_groups,
        "step_chosen_by": CHOSEN_BY,
        "members": members,
    }


def _cut_by(config: Config) -> str:
    if config.data.fold_groups is not None:
        return "groups"
    return "ABAW's six folds" if config.data.folds is None else "recordings"


def _show(scores: Mapping[str, Any], path: Path) -> None:
    """Prints the folds, the score of all, and what it is worth."""
    table = Table(title="CCC of the held-out videos, fold by fold", title_justify="left")
    for name in ("fold", "videos", "step", *DIMENSIONS, "mean"):
        table.add_column(name, justify="right")
    for row in scores["members"]:
        values = (shown(row[k]) for k in ("ccc_valence", "ccc_arousal", "ccc"))
        table.add_row(str(row["fold"]), str(row["num_videos"]), str(row["step"]), *values)
    console.print(table)
    print_scores(scores, f"{scores['model']}, every video predicted by the fold that held it out")
    say(
        f"{scores['folds']} folds, cut by {scores['cut_by']}; seed {scores['seed']}; "
        f"step chosen by: {scores['step_chosen_by']}"
    )
    if scores["untrained_encoders"]:
        names = ", ".join(scores["untrained_encoders"])
        say(f"note: features from untrained encoders ({names}); no claim beyond this corpus")
    say(f"scores: {path}; predictions: {path.with_suffix('')}")
