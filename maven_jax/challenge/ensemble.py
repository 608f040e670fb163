"""Predictions of several runs combined: folds, seeds, or a run for each dimension."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from rich.table import Table

from maven_jax.challenge.evaluated import VideoTable, read_runs
from maven_jax.challenge.weights import Weighed, for_members, given_weights, products, weigh
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Calibration, in_words
from maven_jax.evaluation.report import file_stem, report_of, write_report
from maven_jax.evaluation.scores import score
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.tables import print_scores, shown
from maven_jax.progress import console, say
from maven_jax.store.schema import VideoEntry
from maven_jax.types import DIMENSIONS

EQUAL = "equal"
# The split whose predictions choose weights.
_CHOOSES = "validation"
_MEMBER_SCORES = ("ccc_valence", "ccc_arousal", "ccc")


def pairwise_ccc(tracks: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, "r r"]:
    """The CCC of every two tracks, by population moments; 0 for two that both stand still."""
    mean = tracks.mean(1)
    centred = tracks - mean[:, None]
    covariance = centred @ centred.T / tracks.shape[1]
    variance = np.diag(covariance)
    spread = variance[:, None] + variance + (mean[:, None] - mean) ** 2
    return np.divide(2 * covariance, spread, out=np.zeros_like(spread), where=spread > 0)


def mean(tracks: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, "n"]:
    """The mean of several runs' tracks of one video."""
    return tracks.mean(0)


def ccc_centring(tracks: Float64[np.ndarray, "r n"]) -> Float64[np.ndarray, "n"]:
    """The mean of several runs' tracks of one video, each moved to a common mean before.

    The way in which the gold standard of AVEC 2016 is made of several raters' annotations, and in
    which the authors of LFAN (Zhang et al., ABAW 2021 and 2022) ensemble their folds. The
    agreement a_r of a run is the mean of its CCCs with each of the others; the common mean is
    m = sum_r a_r mean(x_r) / sum_r a_r; the result is the mean over runs of x_r - mean(x_r) + m.
    It has the shape of the plain mean, and a level in which a run that agrees with nobody has
    little say.

    Ours where that is not defined: a negative agreement counts as none, and if no run agrees with
    another (or there is but one), the result is the plain mean.
    """
    runs = len(tracks)
    if runs < 2:
        return tracks.mean(0)
    agreement = (pairwise_ccc(tracks).sum(1) - pairwise_ccc(tracks).diagonal()) / (runs - 1)
    agreement = np.maximum(agreement, 0)
    if not agreement.sum():
        return tracks.mean(0)
    level = (agreement * tracks.mean(1)).sum() / agreement.sum()
    return (tracks - tracks.mean(1, keepdims=True)).mean(0) + level


METHODS: dict[str, Callable[[Float64[np.ndarray, "r n"]], Float64[np.ndarray, "n"]]] = {
    "mean": mean,
    "ccc_centring": ccc_centring,
}


def combine(
    runs: Sequence[Mapping[str, VideoTable]],
    method: Callable[[Float64[np.ndarray, "r n"]], Float64[np.ndarray, "n"]],
    name: str,
    weights: Mapping[str, Float64[np.ndarray, "r"]] | None = None,
) -> dict[str, Float64[np.ndarray, "n"]]:
    """One video's tracks: of each dimension, the runs that predict it, clipped to [-1, 1].

    Args:
        runs: of the same videos.
        method: that joins them.
        name: of the video.
        weights: dimension -> of each run, for a weighted mean in place of the method.
    """
    joined = {}
    for d in DIMENSIONS:
        members = [i for i, run in enumerate(runs) if d in run[name].predictions]
        if members:
            tracks = np.stack([runs[i][name].predictions[d] for i in members])
            track = method(tracks) if weights is None else weights[d][members] @ tracks
            joined[d] = np.clip(track, -1, 1)
    return joined


@dataclass
class Weights:
    """Weights of the runs of an ensemble.

    Attributes:
        by_dimension: dimension -> of each run; 0 for runs that do not predict it.
        chosen: dimension -> how the choice scores; empty for weights that were given.
    """

    by_dimension: dict[str, Float64[np.ndarray, "r"]]
    chosen: dict[str, Weighed]

    def to_json(self) -> dict[str, Any]:
        """For the record of an ensemble."""
        scores = {
            d: {
                "ccc_chosen_on_it": w.chosen_on_it,
                "ccc_left_out": None if np.isnan(w.left_out) else w.left_out,
                "ccc_equal": w.equal,
            }
            for d, w in self.chosen.items()
        }
        return {
            **{d: w.tolist() for d, w in self.by_dimension.items()},
            "chosen_on": _CHOOSES if self.chosen else None,
            "scores": scores,
        }


def weights_of(
    workdirs: Sequence[Path], how: str, written: Sequence[Mapping[str, Any]], calibrated: bool
) -> Weights:
    """The weights of some runs.

    Args:
        workdirs: of the runs.
        how: `validation`, or a number for each run.
        written: step and dimensions of each run's predictions that are to be joined.
        calibrated: whether those are calibrated, so that the ones that choose are too.

    Raises:
        UserError: neither, or validation was not evaluated in all of them with the same steps.
    """
    predicts = {d: [d in s["dimensions"] for s in written] for d in DIMENSIONS}
    predicts = {d: does for d, does in predicts.items() if any(does)}
    if how != _CHOOSES:
        return Weights(for_members(given_weights(how, len(workdirs)), predicts), {})
    validated, tables, _ = read_runs(workdirs, _CHOOSES, calibrated)
    for workdir, before, now in zip(workdirs, validated, written):
        if before["step"] != now["step"] or before["dimensions"] != now["dimensions"]:
            raise UserError(
                f"{workdir}: {_CHOOSES} was evaluated with step {before['step']}, "
                f"{now.get('split', 'the rows')} with step {now['step']}; evaluate both with one"
            )
    names = {file_stem(v): x.get("recording", v) for s in validated for v, x in s["videos"].items()}
    annotated = [name for name, table in tables[0].items() if table.target_mask.any()]
    if not annotated:
        raise UserError(f"{_CHOOSES} has no annotations to choose weights by; give them as numbers")
    result = Weights({}, {})
    for d, does in predicts.items():
        members = np.flatnonzero(does)
        sums: dict[str, Any] = {}
        for name in annotated:
            mask, column = tables[0][name].target_mask, DIMENSIONS.index(d)
            tracks = np.stack([tables[i][name].predictions[d][mask] for i in members])
            own = products(tracks, tables[0][name].targets[mask, column])
            recording = str(names.get(name, name))
            sums[recording] = sums.get(recording, 0) + own
        weighed = weigh(np.stack([sums[name] for name in sorted(sums)]))
        result.chosen[d] = weighed
        result.by_dimension[d] = np.zeros(len(workdirs))
        result.by_dimension[d][members] = weighed.weights
    return result


def say_weights(workdirs: Sequence[Path], weights: Weights, calibrated: bool) -> None:
    """The weights, and what they are worth.

    Args:
        workdirs: of the runs.
        weights: of them.
        calibrated: whether the tracks are; then the same videos chose that as well.
    """
    for d, values in weights.by_dimension.items():
        each = ", ".join(f"{w.name} {v:.2f}" for w, v in zip(workdirs, values))
        say(f"{d}: {each}")
        if (chosen := weights.chosen.get(d)) is None:
            continue
        score, plain = shown(chosen.chosen_on_it), shown(chosen.equal)
        say(f"  {score} on {_CHOOSES} (equal weights {plain}); chosen on it, so it flatters")
        if np.isnan(chosen.left_out):
            say("  one recording only: what to expect elsewhere cannot be estimated")
            continue
        gain = chosen.left_out - chosen.equal
        say(
            f"  to be expected elsewhere: {shown(chosen.left_out)} ({gain:+.3f}); each recording "
            "by the weights that the others choose"
        )
        if calibrated:
            say("  if these videos chose the runs' calibrations too, that is not taken off")
        if gain <= 0:
            say("  no gain over equal weights once a recording does not choose: leave them equal")


def ensemble(
    workdirs: Sequence[Path],
    out: Path,
    split: str,
    method: str,
    force: bool = False,
    weights: str = EQUAL,
    calibrated: bool = False,
) -> dict[str, Any]:
    """Combines what several runs predicted for a split; writes scores and CSVs as evaluation does.

    Args:
        workdirs: evaluated runs.
        out: folder to write `eval/<split>…` and plots into.
        split: which evaluation.
        method: a key of METHODS.
        force: whether to replace what no ensemble wrote.
        weights: `equal`, `validation` for those that suit the validation predictions best, or a
            number for each run, as in `2,1`.
        calibrated: whether each run's tracks take what `tune` chose for it before they are joined.

    Returns:
        The scores, as in `eval/<split>.json`.

    Raises:
        UserError: fewer than two runs, one that was not evaluated, other frames in one of them, or
            weights that are not to be had.
    """
    if len({w.resolve() for w in workdirs}) < 2:
        raise UserError("an ensemble takes two or more different runs")
    if out.resolve() in {w.resolve() for w in workdirs}:
        raise UserError(f"--out {out} is one of the runs; take another folder")
    check_weights(weights, method)
    report = report_of(out, split, "ensemble", force)
    written, tables, calibrations = read_runs(workdirs, split, calibrated)
    if calibrated:
        _say_calibrations(workdirs, calibrations, split)
    weighted = None
    if weights != EQUAL:
        weighted = weights_of(workdirs, weights, written, calibrated)
    record = _record(workdirs, written, method, weighted)
    for member, own, calibration in zip(record["members"], tables, calibrations):
        if calibration is not None:
            scores, _ = score(_videos([own], written, split, mean, None), member["dimensions"])
            member |= {k: scores[k] for k in _MEMBER_SCORES}
            member["calibration"] = calibration.to_json()
    by_dimension = None if weighted is None else weighted.by_dimension
    videos = _videos(tables, written, split, METHODS[method], by_dimension)
    scores, by_video = score(videos, record["dimensions"])
    scores |= {"split": split, **record}
    times = [table.time_s for table in tables[0].values()]
    path = write_report(report, split, videos, times, scores, by_video)
    if scores["num_frames"]:
        console.print(_table(record["members"], scores, split))
        print_scores(scores, f"{scores['model']} on {split}")
    else:
        say(f"{split} has no annotations: predictions are written, there is nothing to score")
    if weighted is not None:
        say_weights(workdirs, weighted, calibrated)
    if record["untrained_encoders"]:
        names = ", ".join(record["untrained_encoders"])
        say(f"note: features from untrained encoders ({names}); no claim beyond this corpus")
    say(f"scores: {path}; predictions: {path.with_suffix('')}; plots: {out / 'plots'}")
    return scores


def check_weights(weights: str, method: str) -> None:
    """Raises UserError for weights beside a method that has its own."""
    if weights != EQUAL and method != "mean":
        raise UserError(f"--weights {weights} goes with --method mean; {method} has its own")


def _say_calibrations(
    workdirs: Sequence[Path], calibrations: Sequence[Calibration | None], split: str
) -> None:
    """What is done to each run's tracks, and whether this split chose it."""
    for workdir, calibration in zip(workdirs, calibrations):
        if calibration is None:
            say(f"{workdir}: as it is (nothing was tuned)")
        else:
            chose = f"tuned on {calibration.split}"
            flatters = ", so its score flatters" if calibration.split == split else ""
            say(f"{workdir}: {in_words(calibration.adjustments)} ({chose}{flatters})")


def _videos(
    tables: Sequence[Mapping[str, VideoTable]],
    written: Sequence[Mapping[str, Any]],
    split: str,
    method: Callable[[Float64[np.ndarray, "r n"]], Float64[np.ndarray, "n"]],
    weights: Mapping[str, Float64[np.ndarray, "r"]] | None,
) -> list[PredictedVideo]:
    """The videos with the tracks of some runs joined, see `combine`; 0 where none predicts."""
    names = {file_stem(v): v for s in written for v in s["videos"]}
    recordings = {v: str(x.get("recording", v)) for s in written for v, x in s["videos"].items()}
    videos = []
    for name, table in tables[0].items():
        joined = combine(tables, method, name, weights)
        zeros = np.zeros(len(table.time_s))
        predictions = np.stack([joined.get(d, zeros) for d in DIMENSIONS], 1).astype(np.float32)
        video = names.get(name, name)
        entry = _entry(video, split, table, recordings.get(video) or video)
        videos.append(PredictedVideo(entry, predictions, table.targets, table.target_mask))
    return videos


def _record(
    workdirs: Sequence[Path],
    written: Sequence[Mapping[str, Any]],
    method: str,
    weighted: Weights | None,
) -> dict[str, Any]:
    """What the scores of an ensemble say of its making and its members."""
    members = [
        {
            "workdir": str(workdir),
            **{k: s[k] for k in ("model", "fold", "step", "dimensions")},
            **{k: s[k] for k in _MEMBER_SCORES},
            "calibration": None,
        }
        for workdir, s in zip(workdirs, written)
    ]
    folds = {s["fold"] for s in written}
    return {
        "dimensions": [d for d in DIMENSIONS if any(d in s["dimensions"] for s in written)],
        "fold": folds.pop() if len(folds) == 1 else None,
        "step": None,
        "model": f"{'weighted ' if weighted else ''}{method} of {len(workdirs)}",
        "modalities": list(dict.fromkeys(m for s in written for m in s["modalities"])),
        "num_parameters": sum(s["num_parameters"] for s in written),
        "untrained_encoders": list(
            dict.fromkeys(m for s in written for m in s["untrained_encoders"])
        ),
        "method": method,
        "weights": weighted and weighted.to_json(),
        "members": members,
    }


def _entry(video: str, split: str, table: VideoTable, recording: str) -> VideoEntry:
    """A video's entry as far as a table tells."""
    frames = len(table.time_s)
    duration_s = float(table.time_s[-1] - table.time_s[0]) if frames else 0.0
    return VideoEntry(
        video=video,
        split=split,
        num_frames=frames,
        first_record=0,
        fps=(frames - 1) / duration_s if duration_s else 0.0,
        duration_s=duration_s,
        num_annotated=int(table.target_mask.sum()),
        stem=recording,
        observed={},
        nonfinite={},
        segments=((0, frames),),
    )


def _table(members: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], split: str) -> Table:
    """The runs and their ensemble, a row each."""
    table = Table(title=f"CCC on {split}", title_justify="left")
    table.add_column("run", no_wrap=True)
    table.add_column("fold", justify="right")
    for name in (*DIMENSIONS, "mean"):
        table.add_column(name, justify="right")
    ensemble_row = {"workdir": scores["model"], **scores}
    for row in itertools.chain(members, [ensemble_row]):
        fold = "" if row["fold"] is None else str(row["fold"])
        values = (shown(row[k]) for k in ("ccc_valence", "ccc_arousal", "ccc"))
        table.add_row(Path(row["workdir"]).name, fold, *values)
    return table
