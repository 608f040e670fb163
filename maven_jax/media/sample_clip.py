"""A short clip with given pictures, times and sound, to test whether this machine decodes it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float

from maven_jax.media.container import opened, video_stream
from maven_jax.media.frame_times import frame_times
from maven_jax.media.sound import open_audio

# Frames of unequal length: only a reader that uses the container's times gets them right.
_STEPS_MS = (40, 40, 20, 80, 33, 47)
FRAMES = 24
TIMES_S: Float[np.ndarray, "n"] = (
    np.concatenate([[0], np.cumsum([_STEPS_MS[i % 6] for i in range(FRAMES - 1)])]) / 1000
)
SECONDS = 1.0
_RATE_HZ = 16000


def write_clip(path: Path) -> None:
    """H.264 pictures that grow brighter, and a second of AAC sound."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.thread_count = 1
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        sound = out.add_stream("aac", rate=_RATE_HZ, layout="mono")
        for i, time_s in enumerate(TIMES_S):
            picture = np.full((64, 96, 3), 20 + 9 * i, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        at_s = np.arange(round(SECONDS * _RATE_HZ)) / _RATE_HZ
        samples = (0.3 * np.sin(2 * np.pi * 440 * at_s)).astype(np.float32)[None]
        for start in range(0, samples.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(samples[:, start : start + 1024], "fltp", "mono")
            block.sample_rate, block.pts = _RATE_HZ, start
            block.time_base = Fraction(1, _RATE_HZ)
            out.mux(sound.encode(block))
        out.mux(sound.encode())


def decode_clip(
    path: Path,
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"], float]:
    """Times of the frames in seconds, brightness of each, seconds of sound."""
    with opened(path) as container:
        stream = video_stream(path, container)
        shades = [float(f.to_ndarray(format="gray").mean()) for f in container.decode(stream)]
    samples = sum(len(block) for block in open_audio(path).blocks(_RATE_HZ))
    return frame_times(path), np.array(shades), samples / _RATE_HZ
