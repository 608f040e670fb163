"""What an evaluation leaves in the workdir: scores, a CSV per video, plots, a table."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from maven_jax.data.store import Store
from maven_jax.inference import Track
from maven_jax.progress import console, say
from maven_jax.report import plots
from maven_jax.types import AROUSAL, VALENCE
from maven_jax.writers import write_json

_PLOTTED = 3  # best and worst videos of which a curve is drawn
_TIME_CHUNK = 20_000


def file_stem(video: str) -> str:
    """A file name for a video's name: itself when harmless, otherwise cleaned, with a digest."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,150}", video):
        return video
    digest = hashlib.sha256(video.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_\-]", "_", video)[:100] + "-" + digest


def frame_times(store: Store, track: Track) -> np.ndarray:
    """The video's frame times in seconds, (n,)."""
    n = track.entry.num_frames
    parts = [
        store.read(track.entry, start, min(start + _TIME_CHUNK, n), ()).time_s
        for start in range(0, n, _TIME_CHUNK)
    ]
    return np.concatenate(parts)


def write_track(track: Track, time_s: np.ndarray, path: Path) -> None:
    """CSV with a row per frame; targets are empty where there is no annotation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = ("valence", "arousal", "target_valence", "target_arousal")
        writer.writerow(("frame", "time_s", *names))
        rows = zip(time_s, track.predictions, track.targets, track.target_mask)
        for frame, (t, prediction, target, annotated) in enumerate(rows, 1):
            shown = [f"{v:.6f}" for v in prediction]
            shown += [f"{v:.6f}" if annotated else "" for v in target]
            writer.writerow((frame, f"{t:.4f}", *shown))


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """The scores as a table on screen."""
    table = Table(title=title, title_justify="left")
    for column in ("", "valence", "arousal", "mean"):
        table.add_column(column, justify="left" if not column else "right")
    for label, key, suffix in (
        ("CCC, all frames concatenated", "ccc", ""),
        ("CCC, mean over videos", "ccc", "_video_mean"),
        ("PCC", "pcc", ""),
        ("RMSE", "rmse", ""),
    ):
        values = (scores[f"{key}{d}{suffix}"] for d in ("_valence", "_arousal", ""))
        table.add_row(label, *(f"{v:.3f}" for v in values))
    console.print(table)
    say(f"{scores['num_frames']:,} annotated frames of {scores['num_videos']} videos")


def write_report(
    workdir: Path,
    split: str,
    store: Store,
    tracks: Sequence[Track],
    scores: Mapping[str, Any],
    by_video: np.ndarray,
) -> Path:
    """Writes `eval/<split>.json`, `eval/<split>/<video>.csv` and plots; returns the JSON's path.

    Args:
        workdir: folder of the run.
        split: name of the split.
        store: where the times come from.
        tracks: one per video.
        scores: what goes into the JSON.
        by_video: (v, 2) each video's ccc.
    """
    folder = workdir / "eval" / split
    scored = [i for i, t in enumerate(tracks) if t.target_mask.any()]
    order = sorted(scored, key=lambda i: float(by_video[i].mean()))
    drawn = dict.fromkeys(order[:_PLOTTED], "worst") | dict.fromkeys(order[-_PLOTTED:], "best")
    for kind in ("best", "worst", "track"):  # of an earlier evaluation
        for old in (workdir / "plots").glob(f"{split}_{kind}_*.png"):
            old.unlink()
    for i, track in enumerate(tracks):
        time_s = frame_times(store, track)
        name = file_stem(track.entry.video)
        write_track(track, time_s, folder / f"{name}.csv")
        if i in drawn or not scored:
            title = f"{track.entry.video}   CCC valence {by_video[i, VALENCE]:.3f}, "
            title += f"arousal {by_video[i, AROUSAL]:.3f}"
            plots.plot_track(
                time_s,
                track.predictions,
                track.targets,
                track.target_mask,
                title,
                workdir / "plots" / f"{split}_{drawn.get(i, 'track')}_{name}.png",
            )
    if scored:
        kept = [(t.predictions[t.target_mask], t.targets[t.target_mask]) for t in tracks]
        predictions, targets = (np.concatenate(x) for x in zip(*kept))
        title = f"{split}: CCC valence {scores['ccc_valence']:.3f}, "
        title += f"arousal {scores['ccc_arousal']:.3f}"
        plots.plot_agreement(
            predictions, targets, title, workdir / "plots" / f"{split}_agreement.png"
        )
    videos = {
        t.entry.video: {"ccc_valence": float(c[VALENCE]), "ccc_arousal": float(c[AROUSAL])}
        for t, c in zip(tracks, by_video)
        if t.target_mask.any()
    }
    path = workdir / "eval" / f"{split}.json"
    write_json(path, {**scores, "videos": videos})
    return path
