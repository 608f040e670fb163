"""What a synthetic person feels, and what of it each modality shows.

All curves share one clock of `CLOCK_HZ` that starts `LEAD_S` before the video, so that a delayed
cue has a past to show and an annotation may run past the end of its video.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CLOCK_HZ = 100
LEAD_S = 2.0
TAIL_S = 2.0

# Aff-Wild2's skew: most of it in the quadrant of pleasant and active.
VALENCE_MEAN, VALENCE_STD, VALENCE_VIDEO_STD = 0.21, 0.40, 0.10
AROUSAL_MEAN, AROUSAL_STD, AROUSAL_VIDEO_STD = 0.22, 0.27, 0.07
# Widths (s) of the two Gaussian kernels whose mixture makes the curves. There are no moods of
# minutes: an expression that never changes teaches nothing in videos this short.
SLOW_S, FAST_S = 1.8, 0.6

# Noise of what is shown, relative to the curves' own scale: (valence, arousal), and its width (s).
FACE_NOISE, FACE_NOISE_S = (0.17, 0.45), 0.45
VOICE_NOISE, VOICE_NOISE_S = (0.85, 0.11), 0.40
# Ranges of the delays (s) by which a modality lags behind the annotation.
FACE_DELAY_S, VOICE_DELAY_S, WORDS_DELAY_S = (0.03, 0.10), (0.10, 0.25), (0.20, 0.40)


def generator(*key: int | str) -> np.random.Generator:
    """A random stream named by `key`, independent of all others and of the order of use."""
    numbers = [zlib.crc32(k.encode()) if isinstance(k, str) else k for k in key]
    return np.random.default_rng(np.random.SeedSequence(numbers))


def clock(seconds: float | int) -> Float[np.ndarray, "n"]:
    """Times (s) of the clock's ticks for a video of `seconds`."""
    num = round((LEAD_S + seconds + TAIL_S) * CLOCK_HZ) + 1
    return np.arange(num) / CLOCK_HZ - LEAD_S


def smooth_noise(
    rng: np.random.Generator, num: int, width_s: float | int
) -> Float[np.ndarray, "num"]:
    """White noise under a Gaussian kernel of `width_s`; mean 0 and variance 1 in expectation."""
    half = int(np.ceil(4 * width_s * CLOCK_HZ))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / (width_s * CLOCK_HZ)) ** 2)
    kernel /= np.sqrt(np.sum(kernel**2))
    size = num + 2 * half
    white = rng.standard_normal(size)
    smooth = np.fft.irfft(np.fft.rfft(white) * np.fft.rfft(kernel, size), size)
    return smooth[2 * half :]


@dataclass(frozen=True)
class Feeling:
    """The truth of one person in one video, on the clock.

    Attributes:
        time_s: (n,) the clock.
        valence, arousal: (n,) in [-1, 1].
    """

    time_s: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray

    def at(self, time_s: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t 2"]:
        """Valence and arousal at `time_s` (t,) -> (t, 2)."""
        columns = [np.interp(time_s, self.time_s, curve) for curve in (self.valence, self.arousal)]
        return np.stack(columns, axis=1)


def draw_feeling(
    rng: np.random.Generator, seconds: float | int, common: np.random.Generator | None = None
) -> Feeling:
    """Draws the curves of one person.

    Args:
        rng: the person's own stream.
        seconds: duration of the video.
        common: a stream that two people of one video share (each has a fresh copy). Half the
            variance of their curves is then common, as of people who talk to each other.
    """
    time_s = clock(seconds)

    def curve(mean: float, std: float, video_std: float) -> np.ndarray:
        def unit(stream: np.random.Generator) -> np.ndarray:
            slow, fast = (smooth_noise(stream, time_s.size, w) for w in (SLOW_S, FAST_S))
            return 0.85 * slow + np.sqrt(1 - 0.85**2) * fast

        shape = unit(rng)
        if common is not None:
            shape = np.sqrt(0.5) * (shape + unit(common))
        return np.tanh(mean + video_std * rng.standard_normal() + std * shape)

    valence = curve(VALENCE_MEAN, VALENCE_STD, VALENCE_VIDEO_STD)
    arousal = curve(AROUSAL_MEAN, AROUSAL_STD, AROUSAL_VIDEO_STD)
    return Feeling(time_s, valence, arousal)


def irony_curve(
    time_s: Float[np.ndarray, "n"], intervals: list[tuple[float, float]]
) -> Float[np.ndarray, "n"]:
    """1 inside the ironic `intervals` (s), 0 outside, with flanks of about 0.2 s."""
    inside = np.zeros(time_s.size)
    for start_s, end_s in intervals:
        inside[(time_s >= start_s) & (time_s < end_s)] = 1.0
    box = np.ones(round(0.2 * CLOCK_HZ) + 1)
    return np.convolve(np.pad(inside, box.size // 2, mode="edge"), box / box.size, "valid")


@dataclass(frozen=True)
class Shown:
    """What one modality shows of the two curves, on the clock: noisy, late, on its own scale."""

    time_s: np.ndarray
    valence: np.ndarray
    arousal: np.ndarray
    delay_s: float

    def at(self, time_s: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t 2"]:
        """What is shown at `time_s` (t,) -> (t, 2)."""
        columns = [np.interp(time_s, self.time_s, curve) for curve in (self.valence, self.arousal)]
        return np.stack(columns, axis=1)


def show(
    rng: np.random.Generator,
    feeling: Feeling,
    *,
    noise: tuple[float, float],
    noise_s: float,
    delay_range_s: tuple[float, float],
    sign: np.ndarray | float = 1.0,
) -> Shown:
    """Delays the curves, adds smooth noise to them, and reverses valence where `sign` says so.

    Args:
        rng: the stream of this modality.
        feeling: the truth.
        noise: standard deviations (valence, arousal) of the noise.
        noise_s: width of the noise's kernel.
        delay_range_s: the delay is drawn from this range, once.
        sign: (n,) factor of valence, -1 where the modality shows the opposite.
    """
    time_s = feeling.time_s
    delay_s = float(rng.uniform(*delay_range_s))
    delayed = feeling.at(time_s - delay_s)
    noises = [std * smooth_noise(rng, time_s.size, noise_s) for std in noise]
    return Shown(time_s, sign * delayed[:, 0] + noises[0], delayed[:, 1] + noises[1], delay_s)
