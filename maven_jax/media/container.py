"""Media files opened safely (PyAV): which files, which streams, which clock.

One clock for pictures and sound: seconds since the container's start. Sound that begins late, or
video that does, keeps its place on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import av.container
import av.stream
import cv2

from maven_jax.errors import listing
from maven_jax.media.problems import InputError, check_file, printable

# fmt: off
MEDIA_SUFFIXES = (
    ".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".wmv", ".asf", ".flv", ".f4v", ".mpg",
    ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".3gp", ".3g2", ".ogv", ".dv", ".gxf",
    ".nut", ".rm", ".rmvb", ".wtv", ".divx", ".qt", ".gif", ".y4m",
)
# The first one counts when a recording has several.
SOUND_SUFFIXES = (
    ".wav", ".w64", ".flac", ".aiff", ".aif", ".aifc", ".caf", ".au", ".m4a", ".aac", ".mp3",
    ".ogg", ".oga", ".opus", ".wma", ".ac3", ".amr", ".mka", ".wv", ".ape",
)
# fmt: on
# The demuxers allowed: all containers of pictures and sound that are in use. A playlist or a
# concatenation script that is named like a video could open other files.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,asf,asf_o,flv,live_flv,mpeg,mpegts,mxf,ogg,dv,gxf,"
    "nut,rm,wtv,ivf,gif,yuv4mpegpipe,"
    "wav,w64,aiff,caf,au,flac,mp3,aac,ac3,eac3,amr,ape,wv,tta,tak,dts,truehd,voc"
)
# Limits of what a file may claim: the pixels of 8K, more frames a second than cameras take,
# 37 hours at 30 frames a second, four days.
MAX_PIXELS = 1 << 25
MAX_FPS = 5_000
MAX_FRAMES = 4_000_000
MAX_DURATION_S = 350_000.0
# A stream's clock that falls back by more started again; small disorder is a muxer's.
_FALL_S = 0.5
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
        if check_file(path) == 0:
            raise InputError(path, "", "zero bytes")
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except InputError:
        raise
    except DECODER_ERRORS as error:
        message = f"cannot be opened (truncated, or not a media file): {error_text(error)}"
        if path.is_file() and cv2.haveImageReader(str(path)):
            message = "a picture; a recording is expected"
        raise InputError(path, "", message) from None
    with container:
        yield container


def container_start_s(container: av.container.InputContainer) -> float:
    """What the streams' clock shows at the container's start."""
    return (container.start_time or 0) / av.time_base


def check_clock(path: Path, packet: av.Packet, before_s: float) -> float:
    """When a packet is decoded, seconds on its stream's clock; `before_s` if it does not say.

    Args:
        path: the file.
        packet: the next one of a stream.
        before_s: of the packet before it, minus infinity for the first.

    Raises:
        InputError: (a UserError) the clock starts again: recordings were joined byte by byte.
    """
    if packet.dts is None or packet.time_base is None:
        return before_s
    now_s = float(packet.dts * packet.time_base)
    if now_s < before_s - _FALL_S:
        raise InputError(
            path,
            f"{packet.stream.type}, {before_s:.2f} s",
            f"the clock falls back to {now_s:.2f} s, as in recordings joined by `cat`: split them, "
            "or mend the clock with `ffmpeg -i FILE NEW.mp4`",
        )
    return now_s


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not an attached picture.

    Raises:
        InputError: (a UserError) there is none, or its header claims a picture that is too large.
    """
    streams = video_streams(container)
    if not streams:
        raise InputError(path, "", "has no video stream")
    width, height = streams[0].codec_context.width, streams[0].codec_context.height
    if width * height > MAX_PIXELS:
        raise InputError(path, "", f"pictures of {width:,} x {height:,} pixels are too large")
    # A single picture may claim more than the stream's header.
    streams[0].codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return streams[0]


def video_streams(container: av.container.InputContainer) -> list[av.VideoStream]:
    """The video streams that are no attached pictures and can be decoded."""
    attached = av.stream.Disposition.attached_pic
    return [
        stream
        for stream in container.streams.video
        if not stream.disposition & attached and stream.codec_context is not None
    ]


def audio_stream(path: Path, container: av.container.InputContainer) -> av.AudioStream:
    """The first audio stream that can be decoded.

    Raises:
        InputError: (a UserError) there is none.
    """
    for stream in container.streams.audio:
        if stream.codec_context is not None:
            return stream
    raise InputError(path, "", "has no audio stream")


def other_tracks(chosen: av.stream.Stream, streams: Sequence[av.stream.Stream]) -> list[str]:
    """A note that says which of several streams of a kind is read, if there are several."""
    if len(streams) < 2:
        return []
    names = [_track(stream) for stream in streams if stream is not chosen]
    return [
        f"of {len(streams)} {chosen.type} tracks {_track(chosen)} is read, not {listing(names)}"
    ]


def _track(stream: av.stream.Stream) -> str:
    """A stream in a few words: `track 0 (eng, "Commentary", 1920 x 1080)`."""
    about = [stream.metadata.get("language"), stream.metadata.get("title")]
    if isinstance(stream, av.VideoStream):
        about.append(f"{stream.codec_context.width} x {stream.codec_context.height}")
    words = ", ".join(printable(word) for word in about if word)
    return f"track {stream.index}{f' ({words})' if words else ''}"


def has_audio(path: Path) -> bool:
    """Whether the file can be opened and has an audio stream; reads its header only."""
    try:
        with opened(path) as container:
            return bool(audio_stream(path, container))
    except InputError:
        return False
