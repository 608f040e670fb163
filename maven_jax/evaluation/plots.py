"""The pictures of a run: training curves, tracks over time, predictions against targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from maven_jax.errors import printable
from maven_jax.types import DIMENSIONS

PREDICTION, TARGET = "#c8453a", "#37474f"


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib, equal pictures are equal files.
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})


def plot_training(rows: Sequence[Mapping[str, Any]], split: str, path: Path) -> None:
    """Loss and validation ccc against steps.

    Args:
        rows: of `metrics.jsonl`.
        split: which split's scores to show.
        path: PNG to write.
    """
    train = [r for r in rows if r["kind"] == "train"]
    scores = [r for r in rows if r["kind"] == split]
    figure = Figure(figsize=(10, 3.4))
    left, right = figure.subplots(1, 2)
    left.plot([r["step"] for r in train], [r["loss"] for r in train], color=TARGET, lw=1)
    left.set(xlabel="step", ylabel="training loss")
    for key, name, color in (
        ("ccc_valence", "valence", "#1f7a99"),
        ("ccc_arousal", "arousal", "#c4761a"),
        ("ccc", "mean", "black"),
    ):
        shown = [(r["step"], r[key]) for r in scores if r[key] is not None]
        if shown:
            right.plot(*zip(*shown), color=color, label=name, marker=".")
    right.set(xlabel="step", ylabel=f"{split} CCC", ylim=(min(-0.05, right.get_ylim()[0]), 1))
    right.legend(frameon=False, loc="lower right")
    for axis in (left, right):
        axis.grid(alpha=0.25)
    _save(figure, path)


def plot_track(
    time_s: Float[np.ndarray, "n"],
    predictions: Float[np.ndarray, "n 2"],
    targets: Float[np.ndarray, "n 2"],
    target_mask: Bool[np.ndarray, "n"],
    title: str,
    path: Path,
    dimensions: Sequence[str] = DIMENSIONS,
) -> None:
    """One video: predictions and annotations over time.

    Args:
        time_s: seconds.
        predictions: valence, arousal.
        targets: valence, arousal.
        target_mask: frames without annotation leave a gap in the target's line.
        title: above the picture.
        path: PNG to write.
        dimensions: those that were predicted.
    """
    figure = Figure(figsize=(10, 4))
    axes = figure.subplots(len(dimensions), 1, sharex=True, squeeze=False)[:, 0]
    shown = np.where(target_mask[:, None], targets, np.nan)
    for name, axis in zip(dimensions, axes):
        dimension = DIMENSIONS.index(name)
        axis.plot(time_s, shown[:, dimension], color=TARGET, lw=1.2, label="annotated")
        axis.plot(time_s, predictions[:, dimension], color=PREDICTION, lw=1, label="predicted")
        axis.set(ylabel=name, ylim=(-1.02, 1.02))
        axis.axhline(0, color="black", lw=0.4)
        axis.grid(alpha=0.25)
    axes[0].set_title(printable(title), fontsize=10, parse_math=False)
    axes[0].legend(frameon=False, ncols=2, fontsize=8, loc="lower right")
    axes[-1].set_xlabel("time (s)")
    if len(time_s) > 1:
        axes[-1].set_xlim(time_s[0], time_s[-1])
    _save(figure, path)


def plot_agreement(
    predictions: Float[np.ndarray, "n 2"],
    targets: Float[np.ndarray, "n 2"],
    title: str,
    path: Path,
    dimensions: Sequence[str] = DIMENSIONS,
) -> None:
    """Predictions against targets of all annotated frames, as densities.

    Args:
        predictions: valence, arousal.
        targets: valence, arousal.
        title: above the picture.
        path: PNG to write.
        dimensions: those that were predicted.
    """
    figure = Figure(figsize=(5.0 * len(dimensions), 4))
    axes = figure.subplots(1, len(dimensions), squeeze=False)
    for name, axis in zip(dimensions, axes[0]):
        dimension = DIMENSIONS.index(name)
        frames = axis.hexbin(
            targets[:, dimension],
            predictions[:, dimension],
            gridsize=40,
            extent=(-1, 1, -1, 1),
            bins="log",
            mincnt=1,
            cmap="viridis",
        )
        axis.plot([-1, 1], [-1, 1], color="black", lw=0.6)
        axis.set(
            xlabel=f"annotated {name}",
            ylabel=f"predicted {name}",
            aspect="equal",
            xlim=(-1, 1),
            ylim=(-1, 1),
            xticks=np.arange(-1, 1.1, 0.5),
            yticks=np.arange(-1, 1.1, 0.5),
        )
        # A logarithmic scale needs some length, even if no cell holds two frames.
        counts = np.asarray(frames.get_array())
        frames.set_clim(1, max(counts.max(initial=1), 10))
        figure.colorbar(frames, ax=axis, shrink=0.8, label="annotated frames")
    figure.suptitle(printable(title), fontsize=10, parse_math=False)
    figure.tight_layout()
    _save(figure, path)
