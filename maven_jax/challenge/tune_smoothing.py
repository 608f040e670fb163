"""Which box filters suit a run, by its validation predictions.

A frame-level model's tracks jitter more than people's ratings: averaging over time raises the
score, and arousal needs longer averages than valence. The widths are chosen on the videos that they
are scored on, so that score is too good. The gain on other recordings is estimated as well: every
recording is smoothed by the widths that all others would have chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int
from rich.table import Table

from maven_jax.errors import UserError
from maven_jax.evaluation.smoothing import WIDTHS_FILE, Smoothing, box_filter
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.sums import ccc_of, sums_of
from maven_jax.evaluation.tables import shown
from maven_jax.files import write_json
from maven_jax.outputs import OutputFile
from maven_jax.progress import console, say
from maven_jax.runs.bundle import is_bundle
from maven_jax.runs.predict_split import open_features, predict_split
from maven_jax.runs.trained_model import open_model
from maven_jax.types import DIMENSIONS

# Frames. RJCA takes 20 and 50, a frame-level model gained most at 101 (spec, section 0).
WIDTHS = (0, 3, 5, 7, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300)


@dataclass(frozen=True)
class Tuned:
    """One dimension's widths and their scores.

    Attributes:
        scores: ccc at each width, all annotated frames concatenated.
        width: the best one.
        raw: ccc without smoothing.
        cross_validated: ccc when each recording is smoothed by the width that is best for all
            others; NaN if there is only one recording.
        chosen: how often each width was chosen so.
    """

    scores: Float64[np.ndarray, "w"]
    width: int
    raw: float
    cross_validated: float
    chosen: Int[np.ndarray, "w"]


def sums(
    videos: Sequence[PredictedVideo], dimension: int, widths: Sequence[int]
) -> Float64[np.ndarray, "w v 6"]:
    """For each width and video: the sums over annotated frames, see `sums_of`."""
    out = np.zeros((len(widths), len(videos), 6))
    for w, width in enumerate(widths):
        for v, video in enumerate(videos):
            smooth = box_filter(video.predictions, (width, width))[:, dimension]
            mask = video.target_mask
            out[w, v] = sums_of(smooth[mask], video.targets[mask, dimension])
    return out


def tune(
    videos: Sequence[PredictedVideo],
    dimension: int,
    widths: Sequence[int],
    recordings: Sequence[str],
) -> Tuned:
    """The width with the highest ccc (of several, the smallest), and an estimate of its real gain.

    Args:
        videos: unsmoothed predictions, with annotations.
        dimension: 0 for valence, 1 for arousal.
        widths: rising, the first 0.
        recordings: of each video; two faces of one recording share theirs.
    """
    by_video = sums(videos, dimension, widths)
    scores = ccc_of(by_video.sum(1))
    names = sorted(set(recordings))
    chosen, held_out = np.zeros(len(widths), np.int64), np.zeros(6)
    for name in names:
        apart = np.array([r == name for r in recordings])
        best = int(ccc_of(by_video[:, ~apart].sum(1)).argmax())
        chosen[best] += 1
        held_out += by_video[best, apart].sum(0)
    return Tuned(
        scores=scores,
        width=widths[int(scores.argmax())],
        raw=float(scores[0]),
        cross_validated=float(ccc_of(held_out)) if len(names) > 1 else float("nan"),
        chosen=chosen,
    )


def tune_smoothing(
    workdir: Path,
    *,
    which: str,
    split: str | None,
    store: str | None,
    widths: Sequence[int],
    force: bool = False,
) -> dict[str, Tuned]:
    """Tunes, prints the table, writes `smoothing.json` into the workdir.

    Args:
        workdir: of a run.
        which: `best`, `latest` or a step.
        split: of the store; None for the run's evaluation split.
        store: its features; None for the run's own.
        widths: to try; 0 is always among them.
        force: whether to replace a `smoothing.json` of other origin.

    Returns:
        Dimension -> its widths and their scores.

    Raises:
        UserError: no run (a bundle is none), or a split without annotations.
    """
    if is_bundle(workdir):
        raise UserError(f"{workdir}: a bundle is not changed; tune its run, then export it again")
    out = OutputFile(workdir / WIDTHS_FILE, "tune-smoothing", "this run", force=force)
    model = open_model(workdir, which)
    features = open_features(model, store)
    split = str(split or model.config.data.eval_split)
    videos = [v for v in predict_split(model, split, features) if v.target_mask.any()]
    if not videos:
        raise UserError(f"{split} has no annotations to tune on; --split takes another one")
    widths = sorted({0, *widths})
    recordings = [v.entry.stem for v in videos]
    tunings = {
        name: tune(videos, DIMENSIONS.index(name), widths, recordings) for name in model.dimensions
    }
    console.print(_table(tunings, widths, split, model.step))
    for name, tuned in tunings.items():
        _say(name, tuned, widths, split)
    valence, arousal = (tunings[d].width if d in tunings else 0 for d in DIMENSIONS)
    chosen = Smoothing((valence, arousal), model.step, split, features.fingerprint)
    details = {
        d: {
            "ccc_raw": t.raw,
            "ccc_tuned": float(t.scores.max()),
            "ccc_cross_validated": None if np.isnan(t.cross_validated) else t.cross_validated,
        }
        for d, t in tunings.items()
    }
    with out.writing() as path:
        write_json(path, {**chosen.to_json(), "scores": details})
    model.say_label()
    say(f"written: {out.path}; `predict --smooth`, `submit` and `export` take it from there")
    return tunings


def _table(tunings: dict[str, Tuned], widths: Sequence[int], split: str, step: int) -> Table:
    title = f"CCC on {split} by width of the box filter, step {step}"
    table = Table(title=title, title_justify="left")
    table.add_column("frames", justify="right")
    for name in tunings:
        table.add_column(name, justify="right")
    for i, width in enumerate(widths):
        cells = [
            shown(float(t.scores[i])) + (" <" if t.width == width else "  ")
            for t in tunings.values()
        ]
        table.add_row(str(width) if width else "none", *cells)
    return table


def _say(name: str, tuned: Tuned, widths: Sequence[int], split: str) -> None:
    """One dimension's result in words."""
    best = f"{name}: {tuned.width or 'no'} frames, {shown(float(tuned.scores.max()))}"
    say(f"{best} (without {shown(tuned.raw)}); chosen on {split} itself, so it flatters")
    if np.isnan(tuned.cross_validated):
        say("  one recording only: what to expect elsewhere cannot be estimated")
        return
    picked = [f"{width or 'none'} x {n}" for width, n in zip(widths, tuned.chosen.tolist()) if n]
    gain = tuned.cross_validated - tuned.raw
    say(
        f"  to be expected elsewhere: {shown(tuned.cross_validated)} ({gain:+.3f}); each recording "
        f"by the width that is best for the others ({', '.join(picked)})"
    )
    if gain <= 0:
        say("  no gain once a recording does not choose for itself: leave it out, or tune on more")
    if tuned.width == widths[-1]:
        say(f"  the widest one tried is the best: --widths beyond {tuned.width} may be better")
