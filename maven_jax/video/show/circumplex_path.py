"""The path of valence and arousal through the emotion circle as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from maven_jax.video.prediction import VideoPrediction
from maven_jax.video.show import look
from maven_jax.video.show.letters import with_all_letters

_COLOURS = "viridis"


@with_all_letters
def plot_path(prediction: VideoPrediction, path: Path) -> None:
    """Writes a PNG: the path through the plane of valence and arousal, coloured by time.

    A bold path, smoothed or calibrated, lies over the thin raw one if there is one. A hollow dot
    marks the first predicted frame, a filled one the last. A label becomes a banner.

    Args:
        prediction: of one face of one video.
        path: PNG to write; its folder is made.
    """
    figure = Figure(figsize=(6.2, 6.2), facecolor="white")
    axis = figure.add_axes((0.03, 0.03, 0.82, 0.82))
    _draw_circle(axis)
    if prediction.bold[1] is not prediction.va:
        axis.plot(*prediction.va.T, color=look.MUTED, lw=0.4, alpha=0.5, zorder=2)
    track = look.shown_track(prediction)
    predicted = np.flatnonzero(np.isfinite(track).all(axis=1))
    if len(predicted):
        time_s = prediction.time_s
        norm = Normalize(float(time_s[0]), float(max(time_s[-1], time_s[0] + 1e-3)))
        pieces = np.stack([track[:-1], track[1:]], axis=1)
        lines = LineCollection(
            list(pieces), cmap=_COLOURS, norm=norm, lw=2.0, capstyle="round", zorder=3
        )
        lines.set_array((time_s[:-1] + time_s[1:]) / 2)
        axis.add_collection(lines)
        _draw_end(axis, track[predicted[0]], "white", look.INK, "start")
        _draw_end(axis, track[predicted[-1]], look.INK, "white", "end")
        bar = figure.colorbar(lines, cax=figure.add_axes((0.88, 0.2, 0.022, 0.5)))
        bar.set_label("time (s)", color=look.INK, fontsize=9)
        bar.ax.tick_params(labelsize=8, colors=look.INK, length=0)
        bar.outline.set_visible(False)
    title = look.shortened(prediction.title, 50)
    figure.text(0.44, 0.885, title, ha="center", fontsize=11, weight="bold", color=look.INK)
    look.draw_banner(prediction, figure)
    look.save(figure, path)


def _draw_end(axis: Axes, at: np.ndarray, face: str, edge: str, name: str) -> None:
    axis.plot(*at, "o", ms=8, mfc=face, mec=edge, mew=1.4, zorder=4)
    axis.annotate(
        name,
        (at[0], at[1]),
        xytext=(7, 7),
        textcoords="offset points",
        fontsize=8,
        color=look.INK,
        zorder=5,
    )


def _draw_circle(axis: Axes) -> None:
    for radius in (0.5, 1.0):
        axis.add_patch(Circle((0, 0), radius, fill=False, ec=look.SHADE, lw=1.2, zorder=0))
    for start, end in (((-1, 0), (1, 0)), ((0, -1), (0, 1))):
        axis.plot(*zip(start, end), color=look.SHADE, lw=1.2, zorder=0)
    for degrees, word in look.CONCEPTS:
        angle = np.deg2rad(degrees)
        # Each word follows the circle, upright.
        turned = degrees + 90 if 180 <= degrees < 360 else degrees - 90
        axis.text(
            1.07 * np.cos(angle),
            1.07 * np.sin(angle),
            word,
            ha="center",
            va="center",
            rotation=turned,
            fontsize=9,
            color=look.MUTED,
        )
    ticks = {"fontsize": 8, "color": look.INK, "weight": "bold"}
    axis.text(0.98, -0.05, "valence +", ha="right", va="top", **ticks)
    axis.text(-0.98, -0.05, "– valence", ha="left", va="top", **ticks)
    axis.text(0.02, 0.965, "arousal +", ha="left", va="top", **ticks)
    axis.text(0.02, -0.965, "– arousal", ha="left", va="bottom", **ticks)
    axis.set(xlim=(-1.14, 1.14), ylim=(-1.14, 1.14), aspect="equal")
    axis.set_axis_off()
