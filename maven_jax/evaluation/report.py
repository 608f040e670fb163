"""What an evaluation leaves in the workdir: scores, a CSV per video, plots, a table."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from maven_jax.errors import UserError, printable
from maven_jax.evaluation import plots
from maven_jax.evaluation.split_predictor import ExtraTrack, PredictedVideo
from maven_jax.evaluation.tables import shown
from maven_jax.files import write_json
from maven_jax.inputs import mismatch, read_json
from maven_jax.outputs import Product
from maven_jax.store.reader import Store
from maven_jax.types import DIMENSIONS

_SCORE = (float, None)
# What is read of an evaluation's file.
_SCORES: Any = {
    **{f"ccc{d}{end}": _SCORE for d in ("", "_valence", "_arousal") for end in ("", "_video_mean")},
    "dimensions": [str],
    "fold": (int, None),
    "step": (int, None),
    "model": str,
    "modalities": [str],
    "num_frames": int,
    "num_videos": int,
    "num_parameters": int,
    "untrained_encoders": [str],
    "videos": {str: dict},
}
# Of evaluations that write it: of one recording there is none, and older ones lack it.
_ENDS = ([float], None)
_INTERVAL: Any = {
    "ccc_interval": (
        {
            **{f"ccc{d}": _ENDS for d in ("", "_valence", "_arousal")},
            "level": float,
            "recordings": int,
        },
        None,
    )
}
_PLOTTED = 3  # best and worst videos of which a curve is drawn
_TIME_CHUNK = 20_000


def file_stem(video: str) -> str:
    """A file name for a video's name: itself when harmless, otherwise cleaned, with a digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,150}", video):
        return video
    digest = hashlib.sha256(video.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_\-]", "_", video)[:100] + "-" + digest


def frame_times(store: Store, video: PredictedVideo) -> Float64[np.ndarray, "n"]:
    """The video's frame times in seconds, (n,)."""
    n = video.entry.num_frames
    parts = [
        store.read(video.entry, start, min(start + _TIME_CHUNK, n), ()).time_s
        for start in range(0, n, _TIME_CHUNK)
    ]
    return np.concatenate(parts)


def write_csv(
    video: PredictedVideo,
    time_s: Float64[np.ndarray, "n"],
    path: Path,
    dimensions: Sequence[str] = DIMENSIONS,
) -> None:
    """CSV with a row per frame; targets are empty where there is no annotation.

    Behind valence and arousal are the columns of each extra target and its annotation: a number,
    the name of a class, or 1 and 0 for each label.

    Args:
        video: what to write.
        time_s: of its frames.
        path: file to write; its folder is made.
        dimensions: those predicted; the columns of others are empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = [*DIMENSIONS, *(f"target_{d}" for d in DIMENSIONS)]
        extra = [(name, cells) for t in video.extra.values() for name, cells in _extra_columns(t)]
        writer.writerow(("frame", "time_s", *names, *(name for name, _ in extra)))
        rows = zip(time_s, video.predictions, video.targets, video.target_mask)
        for frame, (t, prediction, target, annotated) in enumerate(rows, 1):
            cells = [f"{v:.6f}" if d in dimensions else "" for d, v in zip(DIMENSIONS, prediction)]
            cells += [f"{v:.6f}" if annotated else "" for v in target]
            cells += [column[frame - 1] for _, column in extra]
            writer.writerow((frame, f"{t:.4f}", *cells))


def _extra_columns(track: ExtraTrack) -> Iterator[tuple[str, list[str]]]:
    """The columns of an extra target: name and a cell for each frame, empty where there is none."""
    target, rated = track.target, track.target_mask.tolist()
    for name, values in zip(target.columns, track.outputs.T.tolist()):
        yield name, [f"{v:.6f}" for v in values]
    if target.kind == "continuous":
        cells = [f"{v:.6f}" for v in track.targets[:, 0].tolist()]
        yield f"target_{target.name}", [c if r else "" for c, r in zip(cells, rated)]
    elif target.kind == "classes":
        cells = [printable(target.labels[int(v)]) for v in track.targets[:, 0].tolist()]
        yield f"target_{target.name}", [c if r else "" for c, r in zip(cells, rated)]
    else:
        for name, values in zip(target.columns, track.targets.T.tolist()):
            yield (
                f"target_{name}",
                [f"{v:.0f}" if r and v >= 0 else "" for v, r in zip(values, rated)],
            )


def report_of(workdir: Path, split: str, command: str, force: bool | None) -> Product:
    """What the files of `write_report` belong to; checked before anything is predicted.

    Args:
        workdir: folder of the run.
        split: name of the split.
        command: which command writes it.
        force: whether to replace the report of another command.

    Raises:
        UserError: something else is there, or the folder cannot be written.
    """
    product = Product(workdir, command, f"the split {split}", force=force, whole=True)
    product.check(f"eval/{split}.json")
    return product


def write_report(
    product: Product,
    split: str,
    videos: Sequence[PredictedVideo],
    times: Sequence[Float64[np.ndarray, "_"]],
    scores: Mapping[str, Any],
    by_video: Float[np.ndarray, "v 2"],
) -> Path:
    """Writes `eval/<split>.json`, `eval/<split>/<video>.csv` and plots; returns the JSON's path.

    An earlier report stays until the new one is whole.

    Args:
        product: see `report_of`.
        split: name of the split.
        videos: predicted.
        times: seconds of each video's frames.
        scores: what goes into the JSON; its `dimensions` are those that are shown.
        by_video: each video's ccc.
    """
    with product.writing() as folder:
        _fill(folder, split, videos, times, scores, by_video)
    return product.root / "eval" / f"{split}.json"


def _fill(
    workdir: Path,
    split: str,
    videos: Sequence[PredictedVideo],
    times: Sequence[Float64[np.ndarray, "_"]],
    scores: Mapping[str, Any],
    by_video: Float[np.ndarray, "v 2"],
) -> None:
    """Writes the files of a report."""
    dimensions = tuple(scores["dimensions"])
    columns = [DIMENSIONS.index(d) for d in dimensions]
    scored = [i for i, v in enumerate(videos) if v.target_mask.any()]
    order = sorted(scored, key=lambda i: float(by_video[i, columns].mean()))
    drawn = dict.fromkeys(order[:_PLOTTED], "worst") | dict.fromkeys(order[-_PLOTTED:], "best")
    for i, (video, time_s) in enumerate(zip(videos, times)):
        name = file_stem(video.entry.video)
        write_csv(video, time_s, workdir / "eval" / split / f"{name}.csv", dimensions)
        if i in drawn or not scored:
            values = {f"ccc_{d}": float(by_video[i, c]) for d, c in zip(dimensions, columns)}
            plots.plot_track(
                time_s,
                video.predictions,
                video.targets,
                video.target_mask,
                f"{video.entry.video}   {_title(values)}",
                workdir / "plots" / f"{split}_{drawn.get(i, 'track')}_{name}.png",
                dimensions,
            )
    if scored:
        annotated = [(v.predictions[v.target_mask], v.targets[v.target_mask]) for v in videos]
        predictions, targets = (np.concatenate(x) for x in zip(*annotated))
        path = workdir / "plots" / f"{split}_agreement.png"
        title = f"{split}: {_title(scores)}"
        plots.plot_agreement(predictions, targets, title, path, dimensions)
    by_name = {
        v.entry.video: {"recording": v.entry.stem}
        | {f"ccc_{d}": float(c[i]) if d in dimensions else None for i, d in enumerate(DIMENSIONS)}
        for v, c in zip(videos, by_video)
        if v.target_mask.any()
    }
    write_json(workdir / "eval" / f"{split}.json", {**scores, "videos": by_name})


def _title(scores: Mapping[str, Any]) -> str:
    """`CCC valence 0.512, arousal 0.430`, of those that were scored."""
    values = {d: scores.get(f"ccc_{d}") for d in DIMENSIONS}
    return "CCC " + ", ".join(f"{d} {shown(v)}" for d, v in values.items() if v is not None)


def read_scores(workdir: Path, split: str) -> dict[str, Any]:
    """What an evaluation wrote into a workdir; `ccc_interval` is None where it wrote none.

    Raises:
        UserError: the split was not evaluated there, or something else was written there.
    """
    path = workdir / "eval" / f"{split}.json"
    if not path.exists():
        raise UserError(
            f"{path}: not there; `maven-jax evaluate --workdir {workdir} --split {split}` writes it"
        )
    kind = "the scores that an evaluation writes: evaluate it again"
    scores = {"ccc_interval": None} | read_json(path, kind, _SCORES)
    if fault := mismatch(scores, _INTERVAL):
        raise UserError(f"{path}: {fault}; expected {kind}")
    return scores
