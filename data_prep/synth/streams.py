"""Features made elsewhere, in synthetic: noisy predictions of other systems, on a slow clock.

    ROOT/annotations/{train,validation,test}/<video>.csv    time_s,valence,arousal
    ROOT/features/<stream>/<video>.csv                      time_s, then the stream's columns

Each stream predicts valence and arousal from one modality, as `STREAMS` says: too late, with noise
of its own, and with an offset and a scale per person. People have such streams who ran other
systems on their videos. `test` is annotated as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.synth.curves import draw_feeling, generator, smooth_noise
from data_prep.synth.plan import SPLITS, split_sizes
from maven_jax.errors import UserError
from maven_jax.files import write_file
from maven_jax.progress import say

RATE_HZ = 10.0
# Stream -> standard deviation of its noise (valence, arousal), the noise's width (s), delay (s).
STREAMS: dict[str, tuple[tuple[float, float], float, float]] = {
    "face_a": ((0.35, 0.40), 0.4, 0.5),
    "face_b": ((0.45, 0.35), 0.8, 0.8),
    "voice": ((0.80, 0.25), 0.6, 1.2),
    "words": ((0.40, 0.90), 2.0, 1.5),
}
# Standard deviations between people: of the offset, and of the scale's logarithm.
OFFSET, SCALE = 0.25, 0.3
# Columns that a stream has beside its two predictions, which say nothing.
OTHERS = 4


def write_streams(out: Path, *, videos: int, seconds: float | int, seed: int) -> None:
    """Writes annotations and streams of so many videos, one person each.

    Raises:
        UserError: `out` holds something, or a number that is too small.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not empty; name a new folder")
    if videos < 1 or not 1 <= seconds <= 7200 or seed < 0:
        raise UserError("synth --streams: --videos from 1, --seconds from 1 to 7200, --seed from 0")
    splits = [name for name, size in split_sizes(videos).items() for _ in range(size)]
    for number, split in enumerate(splits):
        video = f"person{number:03d}"
        feeling = draw_feeling(generator(seed, "streams", video), seconds)
        time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
        rows = np.column_stack([time_s, feeling.at(time_s)])
        _write(out / "annotations" / split / f"{video}.csv", ("valence", "arousal"), rows)
        for stream, (noise, width_s, delay_s) in STREAMS.items():
            rng = generator(seed, "streams", video, stream)
            columns = _predictions(rng, feeling.at(time_s - delay_s), noise, width_s)
            others = np.column_stack(
                [np.cumsum(rng.standard_normal(len(time_s))) / 10 for _ in range(OTHERS)]
            )
            names = ("valence", "arousal", *(f"other{i}" for i in range(OTHERS)))
            rows = np.column_stack([time_s, columns, others])
            _write(out / "features" / stream / f"{video}.csv", names, rows)
    counts = ", ".join(f"{splits.count(s)} {s}" for s in SPLITS)
    say(f"{out}: {videos} videos ({counts}) at {RATE_HZ:g} Hz, streams {', '.join(STREAMS)}")


def _predictions(
    rng: np.random.Generator,
    curves: Float[np.ndarray, "t 2"],
    noise: tuple[float, float],
    width_s: float,
) -> Float[np.ndarray, "t 2"]:
    """The curves as a system predicts them: shrunk or stretched, shifted, noisy."""
    slow = [smooth_noise(rng, len(curves) * 10, width_s)[::10] for _ in noise]
    offset = OFFSET * rng.standard_normal(2)
    scale = np.exp(SCALE * rng.standard_normal(2))
    return offset + scale * (curves + np.asarray(noise) * np.stack(slow, 1))


def _write(path: Path, names: tuple[str, ...], rows: np.ndarray) -> None:
    lines = [",".join(("time_s", *names))]
    lines += [",".join(f"{value:.5f}" for value in row) for row in rows]
    write_file(path, ("\n".join(lines) + "\n").encode())
