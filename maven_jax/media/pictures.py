"""The pictures of a video, upright and in the order shown, each with its number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import av.video.frame
import numpy as np
from jaxtyping import Float, UInt8

from maven_jax.media.container import (
    DECODER_ERRORS,
    container_start_s,
    opened,
    video_stream,
)
from maven_jax.media.frame_times import MediaInfo

PictureType = av.video.frame.PictureType
# Times computed in two ways differ by less than this, and no two frames are closer together.
_SAME_TIME_S = 1e-4
# Some containers have no index, and are entered a little behind the place that was asked for.
_SEEK_MARGIN_S = 2.0
# A header with pixels more than so many times wider than high, or higher than wide, is wrong.
_WIDEST_PIXEL = 4


def pictures(path: Path, info: MediaInfo) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Decodes a video's frames one by one.

    Args:
        path: the video file.
        info: of the file, by `frame_times.probe`.

    Yields:
        The number of the frame in `info.times_s` and its picture as it is shown, see `upright`.
        Numbers increase. A frame that does not decode, or not without faults, is left out, and so
        are those behind it up to the next one that is coded by itself: they are built on it. The
        others keep their numbers.

    Raises:
        InputError: (a UserError) the file cannot be opened.
    """
    expected, damaged = -1 - (info.first or 0), False
    part = info.stamped and info.first is not None
    from_s = float(info.times_s[0]) if part else None
    for time_s, frame, video in _decoded(path, threads=info.stamped, from_s=from_s):
        expected += 1
        if info.stamped and time_s is not None:
            if part and time_s > info.times_s[-1] + _SAME_TIME_S:
                return
            number = _number_of(time_s, info.times_s)
            if number is None or number < expected:
                expected -= 1
                continue
            expected = number
        if expected >= len(info.times_s):
            return
        damaged = frame.is_corrupt or (damaged and frame.pict_type != PictureType.I)
        if not damaged and expected >= 0:
            yield expected, upright(frame, video)


def _decoded(
    path: Path, threads: bool, from_s: float | None
) -> Iterator[tuple[float | None, av.VideoFrame, av.VideoStream]]:
    """Frames with their times on the container's clock, and their stream.

    What does not decode is passed over; FFmpeg marks the frames that are built on it.

    Args:
        path: the video file.
        threads: decode several frames at once. That loses whole frames around a broken packet,
            which does no harm if timestamps identify the others.
        from_s: begin with the last key frame that is safely before this time; None for the first.
    """
    with opened(path) as container:
        zero_s = container_start_s(container)
        video = video_stream(path, container)
        video.thread_type = "AUTO" if threads else "SLICE"
        if threads:
            # With one thread alone FFmpeg conceals more damage without a mark.
            video.codec_context.thread_count = min(max(os.cpu_count() or 1, 2), 16)
        if from_s is not None and from_s > _SEEK_MARGIN_S:
            container.seek(round((from_s - _SEEK_MARGIN_S + zero_s) * av.time_base), backward=True)
        try:
            for packet in container.demux(video):
                try:
                    frames = packet.decode()
                except DECODER_ERRORS:
                    continue
                for frame in frames:
                    time_s = None
                    if frame.pts is not None and frame.time_base is not None:
                        time_s = float(frame.pts * frame.time_base) - zero_s
                    yield time_s, frame, video
        except DECODER_ERRORS:
            return


def _number_of(time_s: float, times_s: Float[np.ndarray, "n"]) -> int | None:
    """The frame that is shown at `time_s`; None for a time that no frame has."""
    number = int(np.searchsorted(times_s, time_s - _SAME_TIME_S))
    if number < len(times_s) and abs(times_s[number] - time_s) <= _SAME_TIME_S:
        return number
    return None


def upright(frame: av.VideoFrame, stream: av.VideoStream) -> UInt8[np.ndarray, "h w 3"]:
    """A frame's picture in RGB as players show it: with square pixels, and turned upright.

    Where the container says that pixels are not square, the picture is made wider or narrower.
    It is turned as its display matrix says, by quarters only: no camera writes other turns.
    """
    aspect = stream.sample_aspect_ratio or 1
    wrong = not 1 / _WIDEST_PIXEL <= aspect <= _WIDEST_PIXEL
    width = frame.width if wrong else max(round(frame.width * aspect), 1)
    image = frame.to_ndarray(format="rgb24", width=width, height=frame.height)
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
