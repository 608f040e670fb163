"""What all pictures of a prediction share: colours, concepts on the circle, spans, banner."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64
from matplotlib.figure import Figure

from maven_jax.video.prediction import VideoPrediction, Word

VALENCE_COLOUR, AROUSAL_COLOUR = "#1f7a99", "#c4761a"
INK, MUTED, SHADE = "#22292e", "#78838a", "#dfe3e6"
ALARM, CAUTION = "#b3261e", "#8a5a00"
COLOURS = (VALENCE_COLOUR, AROUSAL_COLOUR)

# Eight concepts of affect on their circle, by the angle in degrees from positive valence towards
# positive arousal. Source: Russell, A circumplex model of affect, 1980.
CONCEPTS = (
    (0, "pleasure"),
    (45, "excitement"),
    (90, "arousal"),
    (135, "distress"),
    (180, "misery"),
    (225, "depression"),
    (270, "sleepiness"),
    (315, "contentment"),
)


def shown_track(prediction: VideoPrediction) -> Float32[np.ndarray, "n 2"]:
    """The values drawn in bold: calibrated or smoothed if there are such, otherwise raw."""
    return prediction.bold[1]


def frame_ends(time_s: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """When each picture ends: when the next one begins; the last one lasts the median time."""
    if len(time_s) < 2:
        return time_s + 1 / 30
    return np.append(time_s[1:], time_s[-1] + np.median(np.diff(time_s)))


def spans(
    mask: Bool[np.ndarray, "n"], time_s: Float64[np.ndarray, "n"]
) -> list[tuple[float, float]]:
    """Start and end in seconds of each run of frames where `mask` holds."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    first, behind = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    ends = frame_ends(time_s)
    return [(float(time_s[a]), float(ends[b - 1])) for a, b in zip(first, behind)]


def banner_colour(prediction: VideoPrediction) -> str:
    """Red where numbers mean nothing, ochre where they are weak evidence."""
    return CAUTION if prediction.published else ALARM


def plain(text: str) -> str:
    """A text that matplotlib draws literally: no mathematics, line breaks or control characters."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def shortened(text: str, letters: int) -> str:
    """As `plain`, cut at the end if it is longer than `letters`."""
    return plain(text if len(text) <= letters else text[: letters - 1] + "…")


def fitting_rows(
    words: Iterable[Word], letter_s: float | int, end_s: float | int, rows: int
) -> tuple[list[list[Word]], int]:
    """Words laid out in rows without overlap, each beginning at its own time.

    Args:
        words: by start time.
        letter_s: width of a letter, in seconds of the axis.
        end_s: where the axis ends.
        rows: how many rows there may be.

    Returns:
        The rows in use, and how many words fit in none.
    """
    placed: list[list[Word]] = [[] for _ in range(rows)]
    free = [-np.inf] * rows
    left_out = 0
    for word in words:
        row = next((i for i in range(rows) if free[i] <= word.start_s), None)
        behind_s = word.start_s + len(word.text) * letter_s
        if row is None or behind_s > end_s:
            left_out += 1
        else:
            placed[row].append(word)
            free[row] = behind_s + letter_s
    return [row for row in placed if row], left_out


def draw_banner(prediction: VideoPrediction, figure: Figure) -> None:
    """Draws a prediction's caution across the top of its picture, if it has one."""
    if prediction.label:
        text, letters = prediction.caution, round(11 * figure.get_figwidth())
        lines = textwrap.wrap(text, letters)
        # The narrowest wrapping with as many lines, so that no line holds a single word.
        wraps = (textwrap.wrap(text, k) for k in range(len(text) // len(lines), letters))
        lines = next((wrap for wrap in wraps if len(wrap) == len(lines)), lines)
        figure.text(
            0.5,
            1 - 0.1 / figure.get_figheight(),
            "\n".join(map(plain, lines)),
            ha="center",
            va="top",
            fontsize=9,
            weight="bold",
            color="white",
            bbox={"facecolor": banner_colour(prediction), "edgecolor": "none", "pad": 4},
        )


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG and makes its folder. Equal pictures give equal files."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})
