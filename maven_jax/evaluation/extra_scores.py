"""Scores of the targets beside valence and arousal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.sums import ccc_of, sums_of
from maven_jax.evaluation.tables import shown


def score_extra(videos: Sequence[PredictedVideo]) -> dict[str, dict[str, Any]]:
    """Scores over all annotated frames of the videos together, as ABAW takes them.

    Returns:
        Name -> `kind`, `frames` that are annotated, and `ccc` of a continuous target, or `f1`, the
        mean over the labels of `f1_by_label`: of classes the macro-F1. A label that is neither
        annotated nor predicted counts 0. Targets without an annotated frame are left out.
    """
    scores: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for video in videos for name in video.extra):
        tracks = [video.extra[name] for video in videos]
        target = tracks[0].target
        annotated = [track.target_mask for track in tracks]
        outputs = np.concatenate([t.outputs[m] for t, m in zip(tracks, annotated)])
        values = np.concatenate([t.targets[m] for t, m in zip(tracks, annotated)])
        if not len(values):
            continue
        scores[name] = {"kind": target.kind, "frames": len(values)}
        if target.kind == "continuous":
            scores[name]["ccc"] = float(ccc_of(sums_of(outputs[:, 0], values[:, 0])))
            continue
        if target.kind == "classes":
            labels = np.arange(len(target.labels))
            true = values == labels
            known = np.ones_like(true)
        else:
            true, known = values > 0, values >= 0
        f1 = _f1(target.labels_at(outputs), true, known)
        scores[name] |= {
            "f1": float(f1.mean()),
            "f1_by_label": dict(zip(target.labels, f1.tolist())),
        }
    return scores


def _f1(
    predicted: Bool[np.ndarray, "n k"],
    true: Bool[np.ndarray, "n k"],
    known: Bool[np.ndarray, "n k"],
) -> Float[np.ndarray, "k"]:
    """F1 of each label over the frames where it is annotated."""
    hits = (predicted & true & known).sum(axis=0)
    claimed, there = (predicted & known).sum(axis=0), (true & known).sum(axis=0)
    return 2 * hits / np.maximum(claimed + there, 1)


def describe_extra(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each target."""
    names = {"continuous": "CCC", "classes": "macro-F1", "binary": "mean F1"}
    return [
        f"{name}: {names[s['kind']]} {shown(s.get('ccc', s.get('f1')))} "
        f"on {s['frames']:,} annotated frames"
        for name, s in scores.items()
    ]
