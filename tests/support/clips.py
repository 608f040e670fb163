"""Small media files for tests of what is shown."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE_HZ = 16_000
TAIL_S = 0.3


def write_clip(
    path: Path,
    times_s: np.ndarray,
    *,
    size: tuple[int, int] = (192, 144),
    codec: str = "libx264",
    sound: str = "aac",
    pixels: str = "yuv420p",
) -> Path:
    """A bright square that moves to the right over grey, and a tone; a picture at each time.

    Args:
        path: file to write; its name tells the container.
        times_s: of the pictures, to whole milliseconds.
        size: width and height.
        codec: of the pictures.
        sound: codec of the tone, which outlasts the pictures by TAIL_S; "" for none.
        pixels: format of the pixels.
    """
    width, height = size
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = width, height, pixels
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream(sound, rate=RATE_HZ, layout="mono") if sound else None
        for i, time_s in enumerate(times_s):
            image = np.full((height, width, 3), 90, np.uint8)
            left = (width - 40) * i // max(len(times_s) - 1, 1)
            image[height // 3 : height // 3 + 40, left : left + 40] = (230, 200, 160)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            n = round((float(times_s[-1]) + TAIL_S) * RATE_HZ)
            tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(n) / RATE_HZ)).astype(np.int16)
            for first in range(0, n, 1024):
                part = tone[None, first : first + 1024]
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                frame.sample_rate, frame.pts = RATE_HZ, first
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path
