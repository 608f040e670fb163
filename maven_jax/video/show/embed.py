"""The part of a media file that a page holds: all of it if browsers play it, or thumbnails."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import av.container
import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from maven_jax.media.container import (
    DECODER_ERRORS,
    container_start_s,
    opened,
    video_stream,
)
from maven_jax.media.crops import CROP_SIZE, Crops
from maven_jax.media.pictures import upright
from maven_jax.media.problems import InputError
from maven_jax.video.prediction import VideoPrediction

# In the page it takes a third more, and the browser's memory holds it once more.
EMBEDDED_BYTES = 32 << 20
_THUMBNAILS, _THUMBNAIL_HEIGHT, _JPEG_QUALITY = 100, 240, 80

# What Chromium, Firefox and Safari play alike.
_VIDEO = {
    "video/mp4": ({"h264", "vp9", "av1"}, {"aac", "mp3", "opus", "flac"}),
    "video/webm": ({"vp8", "vp9", "av1"}, {"opus", "vorbis"}),
}
_SOUND = {"mp3": "audio/mpeg", "wav": "audio/wav", "flac": "audio/flac", "mp4": "audio/mp4"}
_PIXELS = {"yuv420p", "yuvj420p"}


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What a page shows of the media.

    Attributes:
        kind: "video", "audio", or "" if browsers do not play it.
        mime: of the file, if browsers play it.
        content: its bytes; empty if the file is too large to be embedded.
        size: width and height of the upright picture in pixels; zeros without pictures.
        thumbnails: (seconds, JPEG), by time; empty where the video itself is embedded.
    """

    kind: str = ""
    mime: str = ""
    content: bytes = b""
    size: tuple[int, int] = (0, 0)
    thumbnails: tuple[tuple[float, bytes], ...] = ()


def embeddable(media: Path, prediction: VideoPrediction) -> Embedded:
    """What a page of `prediction` holds of `media`, a file or a folder of crops.

    Raises:
        UserError: it is not a file or folder, or cannot be opened.
    """
    media = Path(media)
    if media.is_dir():
        return _crops(media, prediction)
    with opened(media) as container:
        try:
            video = video_stream(media, container)
        except InputError:
            video = None
        mime = _video_mime(container) if video else _sound_mime(container)
    small = media.stat().st_size <= EMBEDDED_BYTES
    content = media.read_bytes() if mime and small else b""
    if video is None:
        return Embedded("audio" if mime else "", mime, content)
    times_s = prediction.time_s[:1] if content else _spread_out(prediction.time_s)
    size, thumbnails = (0, 0), []
    for time_s, image in _pictures_at(media, times_s):
        size = (image.shape[1], image.shape[0])
        if not content:
            thumbnails.append((time_s, _jpeg(image)))
    return Embedded("video" if mime else "", mime, content, size, tuple(thumbnails))


def _crops(folder: Path, prediction: VideoPrediction) -> Embedded:
    crops, thumbnails = Crops(folder), []
    for row in _spread_out(np.arange(len(prediction))):
        image = crops.load(int(prediction.frame[row]))
        if image is not None:
            thumbnails.append((float(prediction.time_s[row]), _jpeg(image)))
    return Embedded(size=(CROP_SIZE, CROP_SIZE), thumbnails=tuple(thumbnails))


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture in RGB as JPEG, no higher than a thumbnail."""
    scale = min(1.0, _THUMBNAIL_HEIGHT / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _codecs(streams: Sequence) -> set[str]:
    return {s.codec_context.codec.canonical_name for s in streams if s.codec_context is not None}


def _video_mime(container: av.container.InputContainer) -> str:
    """The type of a file that browsers play; "" for any other."""
    formats = container.format.name.split(",")
    mime = "video/mp4" if "mp4" in formats else "video/webm" if "webm" in formats else ""
    if not mime:
        return ""
    video, sound = _VIDEO[mime]
    pixels = {s.codec_context.pix_fmt for s in container.streams.video if s.codec_context}
    fits = _codecs(container.streams.video) <= video and _codecs(container.streams.audio) <= sound
    return mime if fits and pixels <= _PIXELS else ""


def _sound_mime(container: av.container.InputContainer) -> str:
    formats = container.format.name.split(",")
    return next((mime for name, mime in _SOUND.items() if name in formats), "")


def _spread_out(values: np.ndarray) -> np.ndarray:
    """At most `_THUMBNAILS` of the values, evenly spaced."""
    count = min(_THUMBNAILS, len(values))
    return values[np.linspace(0, len(values) - 1, count).round().astype(int)] if count else values


def _pictures_at(
    media: Path, times_s: Float64[np.ndarray, "n"]
) -> Iterator[tuple[float, UInt8[np.ndarray, "h w 3"]]]:
    """The pictures shown at some times, without those that do not decode.

    It seeks, so a long video costs little more than a short one.
    """
    with opened(media) as container:
        video = video_stream(media, container)
        zero_s = container_start_s(container)
        video.thread_type = "AUTO"
        for at_s in times_s:
            try:
                container.seek(round((float(at_s) + zero_s) * av.time_base), backward=True)
                frames = (f for f in container.decode(video) if f.time is not None)
                frame = next((f for f in frames if f.time - zero_s > at_s - 1e-3), None)
            except DECODER_ERRORS:
                continue
            if frame is not None:
                yield frame.time - zero_s, upright(frame, video)
