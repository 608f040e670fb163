"""Smoothing of predicted tracks: the box filter that RJCA and its relatives end with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from maven_jax.errors import UserError
from maven_jax.inputs import read_json

# In a workdir: the widths that `maven-jax tune-smoothing` chose.
WIDTHS_FILE = "smoothing.json"


def box_filter(track: Float32[np.ndarray, "n 2"], frames: tuple[int, int]) -> np.ndarray:
    """The moving average of each column; the average is over the frames that exist.

    Frame i becomes the mean of the N frames from i - N // 2 on: an even N takes one more frame from
    before than from behind, as in RJCA's released code. (That filter counts zeros beyond the ends,
    so its tracks fade towards 0 there.)

    Args:
        track: valence and arousal of every frame of a video.
        frames: N for valence and for arousal; 0 and 1 leave a column as it is. RJCA: 20 and 50.

    Returns:
        (n, 2) float32; of values in [-1, 1] again in [-1, 1].
    """
    out = track.copy()
    n = len(track)
    for column, width in enumerate(frames):
        if width < 2:
            continue
        # Float64 sums: over hours of video their error stays far below float32's resolution.
        sums = np.concatenate([[0.0], np.cumsum(track[:, column], dtype=np.float64)])
        first = np.arange(n) - width // 2
        low, high = np.maximum(first, 0), np.minimum(first + width, n)
        out[:, column] = (sums[high] - sums[low]) / (high - low)
    return out


def as_widths(value: Any, where: str) -> tuple[int, int]:
    """Widths for valence and arousal, of a recipe or from JSON.

    Args:
        value: to be checked.
        where: it comes from, for the message.

    Raises:
        UserError: not two numbers of frames.
    """
    if isinstance(value, list | tuple) and len(value) == 2:
        widths = (value[0], value[1])
        if all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in widths):
            return widths
    raise UserError(
        f"{where}={value!r}: expected two numbers of frames, of the box filters for valence and "
        "arousal; 0 for none"
    )


@dataclass(frozen=True)
class Smoothing:
    """Widths that `maven-jax tune-smoothing` chose, and by which predictions.

    Attributes:
        frames: of the box filters for valence and arousal.
        step: of the checkpoint that predicted.
        split: of the store that was predicted.
        store: its fingerprint.
    """

    frames: tuple[int, int]
    step: int
    split: str
    store: str

    def to_json(self) -> dict[str, Any]:
        """As `smoothing.json` and bundles have it."""
        valence, arousal = self.frames
        return {
            "valence": valence,
            "arousal": arousal,
            "step": self.step,
            "split": self.split,
            "store_fingerprint": self.store,
        }

    @classmethod
    def from_json(cls, content: Any, where: str) -> Smoothing:
        """The inverse of `to_json`; other keys do not matter.

        Raises:
            UserError: it is not what `to_json` writes.
        """
        if not isinstance(content, dict):
            raise UserError(f"{where}: expected smoothing widths and what chose them")
        widths = [content.get(d) for d in ("valence", "arousal")]
        frames = as_widths(widths, f"{where}: smoothing widths")
        step, split, store = (content.get(k) for k in ("step", "split", "store_fingerprint"))
        if isinstance(step, int) and isinstance(split, str) and isinstance(store, str):
            return cls(frames, step, split, store)
        raise UserError(
            f"{where}: does not say by which step, split and store its widths were chosen; run "
            "`maven-jax tune-smoothing` again"
        )


def read_smoothing(workdir: Path) -> Smoothing | None:
    """The widths tuned in a workdir; None if there are none.

    Raises:
        UserError: the file is not what `maven-jax tune-smoothing` writes.
    """
    path = workdir / WIDTHS_FILE
    if not path.exists():
        return None
    written = read_json(path, "what `maven-jax tune-smoothing` writes: tune it again")
    return Smoothing.from_json(written, str(path))
