"""Media files opened safely (PyAV): which files, which streams, which clock.

One clock for pictures and sound: seconds since the container's start. Sound that begins late, or
video that does, keeps its place on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import av.stream

from maven_jax.media.problems import InputError

MEDIA_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
# The demuxers allowed: a playlist or a concatenation script that is named like a video could open
# other files.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,wav,mpegts,mp3,flac,ogg,aac"
DECODER_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)


def error_text(error: BaseException) -> str:
    """What an error of FFmpeg or the system says, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The file as a container; every failure is an InputError (a UserError)."""
    path = Path(path)
    try:
        if not path.is_file():
            raise InputError(path, "", "no such file")
        if path.stat().st_size == 0:
            raise InputError(path, "", "zero bytes")
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except InputError:
        raise
    except DECODER_ERRORS as error:
        message = f"cannot be opened (truncated, or not a media file): {error_text(error)}"
        raise InputError(path, "", message) from None
    with container:
        yield container


def container_start_s(container: av.container.InputContainer) -> float:
    """What the streams' clock shows at the container's start."""
    return (container.start_time or 0) / av.time_base


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not an attached picture.

    Raises:
        InputError: (a UserError) there is none.
    """
    attached = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & attached and stream.codec_context is not None:
            return stream
    raise InputError(path, "", "has no video stream")


def has_audio(path: Path) -> bool:
    """Whether the file can be opened and has an audio stream; reads its header only."""
    try:
        with opened(path) as container:
            return any(s.codec_context is not None for s in container.streams.audio)
    except InputError:
        return False
