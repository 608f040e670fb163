"""Valence and arousal over time as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator

from maven_jax.types import DIMENSIONS
from maven_jax.video.prediction import VideoPrediction, Word
from maven_jax.video.show import look
from maven_jax.video.show.letters import with_all_letters

_WORD_ROWS = 3
_WORD_SIZE = 7.5  # points
_WIDTH_IN, _LEFT_IN, _RIGHT_IN, _BOTTOM_IN = 10.0, 0.85, 0.25, 0.5
_DIMENSION_IN, _ROW_IN = 1.75, 0.2


@with_all_letters
def plot_prediction(prediction: VideoPrediction, path: Path) -> None:
    """Writes a PNG: valence above arousal, words below them if there are any.

    A bold curve, smoothed or calibrated, lies over the thin raw one. Frames without a face are
    shaded; frames in which nothing was observed leave a gap. A label becomes a banner.

    Args:
        prediction: of one face of one video.
        path: PNG to write; its folder is made.
    """
    ends = look.frame_ends(prediction.time_s)
    first, last = (prediction.time_s[0], ends[-1]) if len(ends) else (0.0, 1.0)
    letter_s = (last - first) * _WORD_SIZE * 0.62 / 72 / (_WIDTH_IN - _LEFT_IN - _RIGHT_IN)
    rows, left_out = look.fitting_rows(prediction.words, letter_s, float(last), _WORD_ROWS)
    heights = [_DIMENSION_IN, _DIMENSION_IN] + ([_ROW_IN * len(rows) + 0.1] if rows else [])
    top = 0.9 if prediction.label else 0.56
    height = top + sum(heights) + 0.12 * (len(heights) - 1) + _BOTTOM_IN
    figure = Figure(figsize=(_WIDTH_IN, height), facecolor="white")
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    axes: list[Axes] = list(grid[:, 0])
    figure.subplots_adjust(
        left=_LEFT_IN / _WIDTH_IN,
        right=1 - _RIGHT_IN / _WIDTH_IN,
        top=1 - top / height,
        bottom=_BOTTOM_IN / height,
        hspace=0.12 * len(heights) / sum(heights),
    )
    for column, axis in enumerate(axes[:2]):
        _draw_dimension(prediction, column, axis)
    axes[0].set_xlim(first, last)
    if rows:
        _draw_words(rows, left_out, axes[2])
    _draw_time(axes[-1], float(last - first))
    _draw_heading(prediction, figure, axes[0], top)
    look.save(figure, path)


def _draw_dimension(prediction: VideoPrediction, column: int, axis: Axes) -> None:
    colour, time_s = look.COLOURS[column], prediction.time_s
    for start_s, end_s in look.spans(~prediction.face_found, time_s):
        axis.axvspan(start_s, end_s, color=look.SHADE, lw=0, zorder=0)
    axis.axhline(0, color=look.MUTED, lw=0.7, zorder=1)
    word, bold = prediction.bold
    if bold is not prediction.va:
        axis.plot(time_s, prediction.va[:, column], color=colour, lw=0.6, alpha=0.5, label="raw")
        axis.plot(time_s, bold[:, column], color=colour, lw=1.9, label=word)
    else:
        axis.plot(time_s, prediction.va[:, column], color=colour, lw=1.3, label="raw")
    axis.set(ylim=(-1.04, 1.04), yticks=np.arange(-1, 1.1, 0.5))
    axis.set_ylabel(DIMENSIONS[column], color=colour, weight="bold")
    axis.grid(color=look.MUTED, alpha=0.18, lw=0.6)
    axis.tick_params(colors=look.INK, labelsize=8, length=0)
    axis.spines[:].set_visible(False)


def _draw_words(rows: list[list[Word]], left_out: int, axis: Axes) -> None:
    for number, row in enumerate(rows):
        for word in row:
            axis.text(
                word.start_s,
                1 - (number + 0.5) / len(rows),
                look.plain(word.text),
                fontsize=_WORD_SIZE,
                va="center",
                color=look.INK,
                clip_on=True,
            )
    axis.set(ylim=(0, 1), yticks=[])
    label = f"words\n(+{left_out:,})" if left_out else "words"
    axis.set_ylabel(label, color=look.MUTED, rotation=0, ha="right", va="center", fontsize=8)
    axis.tick_params(colors=look.INK, labelsize=8, length=0)
    axis.spines[:].set_visible(False)


def _draw_time(axis: Axes, length_s: float | int) -> None:
    """Labels the axis of time, in minutes if there are more than two."""
    if length_s > 120:
        steps_s = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
        step_s = next((s for s in steps_s if 12 * s > length_s), length_s / 6)
        axis.xaxis.set_major_locator(MultipleLocator(step_s))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t // 60:.0f}:{t % 60:02.0f}"))
    axis.set_xlabel("time (min:s)" if length_s > 120 else "time (s)", color=look.INK)


def _draw_heading(
    prediction: VideoPrediction, figure: Figure, axis: Axes, top: float | int
) -> None:
    """Banner, name and legend in the `top` inches above the first axis."""
    height = figure.get_figheight()
    y, right = 1 - (top - 0.2) / height, 1 - _RIGHT_IN / _WIDTH_IN
    title = look.shortened(prediction.title, 70)
    figure.text(_LEFT_IN / _WIDTH_IN, y, title, fontsize=11, weight="bold", color=look.INK)
    handles, labels = axis.get_legend_handles_labels()
    if not prediction.face_found.all():
        handles, labels = [*handles, Patch(color=look.SHADE)], [*labels, "no face"]
    figure.legend(
        handles,
        labels,
        loc="lower right",
        bbox_to_anchor=(right + 0.008, y - 0.11 / height),
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    look.draw_banner(prediction, figure)
