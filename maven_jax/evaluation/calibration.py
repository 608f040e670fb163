"""What is done to predicted tracks at the end: delay, box filter, and a map of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from maven_jax.errors import UserError
from maven_jax.inputs import mismatch, read_json
from maven_jax.types import DIMENSIONS

# In a workdir: what `maven-jax tune` chose.
CALIBRATION_FILE = "calibration.json"
# What earlier versions wrote instead: widths of box filters alone.
_WIDTHS_FILE = "smoothing.json"
# Seconds. Annotators lag by a few; a file that says more is damaged.
_MAX_DELAY_S = 60.0


def box_filter(track: Float32[np.ndarray, "n 2"], frames: int | tuple[int, int]) -> np.ndarray:
    """The moving average of each column; the average is over the frames that exist.

    Frame i becomes the mean of the N frames from i - N // 2 on: an even N takes one more frame from
    before than from behind, as in RJCA's released code. (That filter counts zeros beyond the ends,
    so its tracks fade towards 0 there.)

    Args:
        track: valence and arousal of every frame of a video.
        frames: N for valence and for arousal, or one N for both; 0 and 1 leave a column as it is.
            RJCA: 20 and 50.

    Returns:
        (n, 2) float32; of values in [-1, 1] again in [-1, 1].

    Raises:
        UserError: no such numbers of frames.
    """
    widths = as_widths([frames, frames] if isinstance(frames, int) else frames, "frames")
    return np.stack([moving_average(x, n) for x, n in zip(track.T, widths)], 1)


def moving_average(x: np.ndarray, width: int) -> np.ndarray:
    """The box filter of one column, (n,); see `box_filter`."""
    if width < 2:
        return x
    n = len(x)
    # Float64 sums: over hours of video their error stays far below float32's resolution.
    sums = np.concatenate([[0.0], np.cumsum(x, dtype=np.float64)])
    first = np.arange(n) - width // 2
    low, high = np.maximum(first, 0), np.minimum(first + width, n)
    return ((sums[high] - sums[low]) / (high - low)).astype(x.dtype)


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


def fill_gaps(values: np.ndarray, observed: Bool[np.ndarray, "n"]) -> np.ndarray:
    """`values` (n,), those of unobserved frames interpolated between their observed neighbours.

    At the ends the nearest observed value is held; if no frame was observed, nothing changes.
    """
    if observed.all() or not observed.any():
        return values
    frames = np.arange(len(values))
    return np.interp(frames, frames[observed], values[observed]).astype(values.dtype)


@dataclass(frozen=True)
class Adjustment:
    """What is done to the track of one dimension, in this order; clipped to [-1, 1] at the end.

    The map comes last, so that what is scored has the mean and spread that it was made for.

    Attributes:
        delay_s: how much later each value comes, in seconds: annotators lag behind what they see.
        frames: width of the box filter.
        scale: of the map x -> scale x + shift.
        shift: of the same.
    """

    delay_s: float
    frames: int
    scale: float
    shift: float

    def __call__(self, values: Float32[np.ndarray, "n"], fps: float) -> np.ndarray:
        """The adjusted track, (n,).

        Args:
            values: of every frame of a video; where NaN, the result is NaN too.
            fps: frames per second of the video.
        """
        known = ~np.isnan(values)
        late = delayed(fill_gaps(values, known), self.delay_s, fps)
        out = self.scale * moving_average(late, self.frames).astype(np.float64) + self.shift
        return np.where(known, np.clip(out, -1, 1), np.nan).astype(np.float32)

    def __str__(self) -> str:
        """`0.4 s later, 20 frames, x 1.12 - 0.030`."""
        parts = [f"{self.delay_s:g} s later"] if self.delay_s else []
        parts += [f"{self.frames} frames"] if self.frames > 1 else []
        if (self.scale, self.shift) != (1, 0):
            sign = "-" if self.shift < 0 else "+"
            parts.append(f"x {self.scale:.3f} {sign} {abs(self.shift):.3f}")
        return ", ".join(parts) or "as it is"


Adjustments = tuple[Adjustment, Adjustment]
UNCHANGED = Adjustment(0.0, 0, 1.0, 0.0)


def delayed(x: np.ndarray, delay_s: float, fps: float) -> np.ndarray:
    """Each value so much later, (n,); the first one is held until then."""
    frames = round(delay_s * fps)
    return x[np.maximum(np.arange(len(x)) - frames, 0)] if frames else x


def filters(frames: tuple[int, int]) -> Adjustments:
    """Box filters alone."""
    valence, arousal = frames
    return Adjustment(0.0, valence, 1.0, 0.0), Adjustment(0.0, arousal, 1.0, 0.0)


def adjusted(
    track: Float32[np.ndarray, "n 2"], fps: float, adjustments: Adjustments
) -> Float32[np.ndarray, "n 2"]:
    """Valence and arousal of every frame, each adjusted; clipped to [-1, 1]."""
    return np.stack([how(x, fps) for x, how in zip(track.T, adjustments)], 1)


def in_words(adjustments: Adjustments) -> str:
    """`valence 20 frames; arousal as it is`."""
    return "; ".join(f"{d} {how}" for d, how in zip(DIMENSIONS, adjustments))


_ADJUSTMENT = {"delay_s": float, "frames": int, "scale": float, "shift": float}
_ORIGIN = {"step": int, "split": str, "store_fingerprint": str}


@dataclass(frozen=True)
class Calibration:
    """What `maven-jax tune` chose, and by which predictions.

    Attributes:
        adjustments: of valence and arousal.
        step: of the checkpoint that predicted.
        split: of the store that was predicted.
        store: its fingerprint.
    """

    adjustments: Adjustments
    step: int
    split: str
    store: str

    def __call__(self, track: Float32[np.ndarray, "n 2"], fps: float) -> np.ndarray:
        """The calibrated track of a video, see `adjusted`."""
        return adjusted(track, fps, self.adjustments)

    def to_json(self) -> dict[str, Any]:
        """As `calibration.json` and bundles have it."""
        by_name = zip(DIMENSIONS, self.adjustments)
        return {
            **{d: {k: getattr(how, k) for k in _ADJUSTMENT} for d, how in by_name},
            "step": self.step,
            "split": self.split,
            "store_fingerprint": self.store,
        }

    @classmethod
    def from_json(cls, content: Any, where: str) -> Calibration:
        """The inverse of `to_json`, and of widths alone, as earlier versions wrote them.

        Raises:
            UserError: it is neither; other keys do not matter.
        """
        if not isinstance(content, dict):
            raise UserError(f"{where}: expected a calibration and what chose it")
        given = [content.get(d) for d in DIMENSIONS]
        if any(isinstance(x, dict) for x in given):
            valence, arousal = (_adjustment(x, f"{where}: {d}") for d, x in zip(DIMENSIONS, given))
        else:
            valence, arousal = filters(as_widths(given, f"{where}: smoothing widths"))
        if mismatch(content, _ORIGIN):
            raise UserError(
                f"{where}: does not say by which step, split and store it was chosen; run "
                "`maven-jax tune` again"
            )
        origin = content["step"], content["split"], content["store_fingerprint"]
        return cls((valence, arousal), *origin)


def _adjustment(value: Any, where: str) -> Adjustment:
    """One dimension's; raises UserError if JSON holds another thing."""
    fault = mismatch(value, _ADJUSTMENT)
    if fault is None:
        # JSON writes 1.0 and 1 alike.
        how = Adjustment(**{k: kind(value[k]) for k, kind in _ADJUSTMENT.items()})
        if how.frames >= 0 and how.scale > 0 and 0 <= how.delay_s <= _MAX_DELAY_S:
            return how
        fault = f"delay {how.delay_s!r} s, {how.frames!r} frames, scale {how.scale!r}"
    raise UserError(
        f"{where}: {fault}; expected delay_s from 0 to {_MAX_DELAY_S:g}, frames from 0, a scale "
        "above 0 and a shift"
    )


def read_calibration(workdir: Path) -> Calibration | None:
    """The calibration tuned in a workdir; None if there is none.

    Raises:
        UserError: the file is not what `maven-jax tune` writes.
    """
    for name in (CALIBRATION_FILE, _WIDTHS_FILE):
        if (workdir / name).exists():
            written = read_json(workdir / name, "what `maven-jax tune` writes: tune it again")
            return Calibration.from_json(written, str(workdir / name))
    return None
