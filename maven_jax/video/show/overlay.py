"""A video with its prediction drawn into it: face box, values, circle and curves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.audio
import av.container
import av.stream

from maven_jax.errors import UserError
from maven_jax.files import whole_file
from maven_jax.media.container import DECODER_ERRORS, container_start_s, opened
from maven_jax.media.frame_times import MediaInfo, probe
from maven_jax.media.pictures import pictures
from maven_jax.media.problems import InputError
from maven_jax.video.prediction import VideoPrediction
from maven_jax.video.show.panel import Panel

# Visually near lossless, with files of about the original's size.
_QUALITY = {"crf": "20", "preset": "veryfast"}
# 90 kHz, the usual clock of video: times are kept to 11 microseconds.
_CLOCK = Fraction(1, 90_000)
# Kinds of sound that an MP4 file carries as they are; others become AAC.
_CARRIED = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
_AAC_RATES_HZ = {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000}


def has_video(media: Path) -> bool:
    """Whether there are pictures to draw on."""
    try:
        return media.is_file() and len(probe(media).times_s) > 0
    except InputError:
        return False


def write_overlay(prediction: VideoPrediction, media: Path, path: Path) -> None:
    """Writes an MP4: each picture of the video with its prediction, and the sound.

    Below the picture is a strip with values, circle and curves; a label becomes a banner across the
    picture. Pictures and sound have the times of the video's container, counted from its start; of
    a prediction of a part, that part alone is written, counted from its own start. Memory holds one
    picture at a time.

    Args:
        prediction: of one face of the video.
        media: the video.
        path: MP4 to write; its folder is made. It is whole or absent.

    Raises:
        UserError: there are no pictures to draw on, no frame of the video decodes, or `path` is
            the video itself.
    """
    media, path = Path(media), Path(path)
    if path.exists() and path.samefile(media):
        raise UserError(f"{path}: is the video itself; the overlay needs another file")
    if media.is_dir():
        raise UserError(f"{media}: an overlay needs a video file, this is a folder of crops")
    try:
        info = probe(media)
    except InputError as error:
        raise UserError(f"{error} (an overlay needs a video)") from None
    begin_s, end_s = 0.0, math.inf
    if len(prediction) and len(prediction) < len(info.times_s):
        first, stop = int(prediction.frame[0]), int(prediction.frame[-1]) + 1
        begin_s = float(info.times_s[first]) if first else 0.0
        end_s = float(info.times_s[stop]) if stop < len(info.times_s) else math.inf
        info = dataclasses.replace(info, times_s=info.times_s[first:stop], first=first)
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as out:
        _write(prediction, media, info, out, (begin_s, end_s))


def _write(
    prediction: VideoPrediction,
    media: Path,
    info: MediaInfo,
    out: av.container.OutputContainer,
    span_s: tuple[float, float],
) -> None:
    images = pictures(media, info)
    number, image = next(images, (0, None))
    if image is None:
        raise InputError(media, "", "no frame of the video decodes")
    panel = Panel(prediction, image.shape[1], image.shape[0])
    video = out.add_stream("libx264", rate=Fraction(info.fps).limit_denominator(1001))
    video.width, video.height = panel.size
    video.pix_fmt, video.options = "yuv420p", _QUALITY
    video.time_base = video.codec_context.time_base = _CLOCK
    with opened(media) as source:
        sound = _Sound(source, out, span_s)
        last = -1
        while image is not None:
            time_s = float(info.times_s[number])
            drawn = panel.drawn(image, (info.first or 0) + number, time_s)
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
            time_s -= span_s[0]
            last = max(round(time_s / _CLOCK), last + 1)
            frame.pts, frame.time_base = last, _CLOCK
            for packet in sound.until(time_s):
                out.mux(packet)
            out.mux(video.encode(frame))
            number, image = next(images, (0, None))
        for packet in sound.until(float("inf")):
            out.mux(packet)
        out.mux(video.encode())


class _Sound:
    """The first sound of a container on its way to another: copied, or encoded anew as AAC.

    Args:
        source: what to read.
        out: where a stream for it is made, if there is any sound.
        span_s: from when to when; what is outside is dropped, by the packet or frame.
    """

    def __init__(
        self,
        source: av.container.InputContainer,
        out: av.container.OutputContainer,
        span_s: tuple[float, float],
    ):
        streams = [s for s in source.streams.audio if s.codec_context is not None]
        self._zero_s, self._length_s = container_start_s(source) + span_s[0], span_s[1] - span_s[0]
        # The whole may begin before the container's start, a part does not.
        self._least_s = 0.0 if span_s[0] else -math.inf
        self._waiting: av.Packet | None = None
        self._out = None
        if not streams:
            self._packets: Iterator[av.Packet] = iter(())
        elif streams[0].codec_context.codec.canonical_name in _CARRIED:
            self._out = out.add_stream_from_template(streams[0])
            self._packets = self._copied(source, streams[0])
        else:
            rate = streams[0].codec_context.sample_rate
            rate = rate if rate in _AAC_RATES_HZ else 48_000
            self._out = out.add_stream("aac", rate=rate, layout="stereo")
            self._packets = self._encoded(source, streams[0])

    def until(self, time_s: float) -> Iterator[av.Packet]:
        """The next packets that begin up to `time_s`."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = packet
            if packet is None or (packet.pts or 0) * packet.time_base > time_s:
                return
            self._waiting = None
            yield packet

    def _is_inside(self, part: av.Packet | av.AudioFrame) -> bool:
        time_s = float((part.pts or 0) * (part.time_base or _CLOCK))
        return self._least_s <= time_s < self._length_s

    def _copied(
        self, source: av.container.InputContainer, stream: av.audio.AudioStream
    ) -> Iterator[av.Packet]:
        shift = round(self._zero_s / (stream.time_base or _CLOCK))
        try:
            for packet in source.demux(stream):
                if packet.size and packet.pts is not None and packet.dts is not None:
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    if self._is_inside(packet):
                        packet.stream = self._out
                        yield packet
        except DECODER_ERRORS:
            return  # silence follows a broken place

    def _encoded(
        self, source: av.container.InputContainer, stream: av.audio.AudioStream
    ) -> Iterator[av.Packet]:
        context = self._out.codec_context
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=context.sample_rate)
        shift = round(self._zero_s / (stream.time_base or _CLOCK))
        try:
            for frame in source.decode(stream):
                if frame.pts is not None:
                    frame.pts -= shift
                    if not self._is_inside(frame):
                        continue
                for piece in resampler.resample(frame):
                    yield from self._out.encode(piece)
        except DECODER_ERRORS:
            pass
        yield from self._out.encode()
