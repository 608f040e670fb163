"""Frame times and sound of media files, by the container's own timestamps (PyAV).

One clock: seconds since the container's start. `frame_times` and `AudioSource.start_s` share it,
so sound that begins late, or video that does, keeps its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
import av.container
import av.stream
import numpy as np
import soxr
from jaxtyping import Float

from maven_jax.media.problems import NOTE, REPAIRED, Fix, InputError

MEDIA_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
# What a demuxer may be: a playlist or a concatenation script under the name of a video could
# otherwise open other files.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,wav,mpegts,mp3,flac,ogg,aac"
DECODER_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError)
# Sound whose timestamps leave a gap (or overlap) of more than this is padded (or cut).
_GAP_S = 0.05
_MAX_GAP_S = 3600.0
# Frames further apart than this are worth a note: the clock may be broken.
_PAUSE_S = 10.0


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The file as a container; every failure is an InputError."""
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
        message = f"cannot be opened (truncated, or not a media file): {_reason(error)}"
        raise InputError(path, "", message) from None
    with container:
        yield container


def container_start_s(container: av.container.InputContainer) -> float:
    """What the clock of the streams shows at the container's start."""
    return (container.start_time or 0) / av.time_base


def video_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is no attached picture.

    Raises:
        InputError: (a UserError) there is none.
    """
    attached = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & attached and stream.codec_context is not None:
            return stream
    raise InputError(path, "", "has no video stream")


def has_audio(path: Path) -> bool:
    """Whether the file can be opened and has an audio stream; reads no more than its header."""
    try:
        with opened(path) as container:
            return any(s.codec_context is not None for s in container.streams.audio)
    except InputError:
        return False


@dataclass
class _Packets:
    """What one pass over a file's packets saw, timestamps in the streams' own units."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    total: int = 0
    suspect: str = ""
    audio_end: int | None = None
    error: str = ""


def _demux(container: av.container.InputContainer, video: av.VideoStream) -> _Packets:
    """Reads all packets without decoding any; a read error ends the list and is kept."""
    seen = _Packets()
    streams = [video, *container.streams.audio[:1]]
    try:
        for packet in container.demux(streams):
            if packet.size == 0:
                # The flush at the end has no timestamps; elsewhere it is a dropped frame (AVI).
                if packet.stream is video and packet.dts is not None:
                    seen.suspect = "an empty packet"
            elif packet.stream is not video:
                if packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    seen.audio_end = end if seen.audio_end is None else max(end, seen.audio_end)
            else:
                if seen.total == 0 and not packet.is_keyframe:
                    seen.suspect = "no key frame at the start"
                seen.total += 1
                if packet.is_corrupt:
                    seen.suspect = "a corrupt packet"
                # An edit list hides these: they are decoded for reference and never shown.
                if not packet.is_discard:
                    seen.pts.append(packet.pts)
                    seen.dts.append(packet.dts)
    except DECODER_ERRORS as error:
        seen.error = _reason(error)
    return seen


def _tail_decodes(path: Path) -> bool:
    """Whether the last group of pictures yields one frame for each of its packets.

    A file whose end was never written (a download that reserved its space) has all packets in
    its index, but the last ones hold nothing.
    """
    with opened(path) as container:
        video = video_stream(path, container)
        packets = frames = 0
        try:
            if video.duration:
                end = (video.start_time or 0) + video.duration
                container.seek(end, stream=video, backward=True)
            for packet in container.demux(video):
                packets += packet.size > 0 and not packet.is_discard
                frames += len(packet.decode())
        except DECODER_ERRORS:
            return False
        return packets > 0 and frames == packets


def _decode_pts(path: Path) -> tuple[list[int | None], int]:
    """The timestamps of all frames that decode, in decoding order, and how many packets failed."""
    pts: list[int | None] = []
    failed = 0
    with opened(path) as container:
        video = video_stream(path, container)
        # One frame after the other: threads over frames lose whole ones around a broken packet.
        video.thread_type = "SLICE"
        try:
            for packet in container.demux(video):
                try:
                    pts.extend(frame.pts for frame in packet.decode())
                except DECODER_ERRORS:
                    failed += 1
        except DECODER_ERRORS:
            failed += 1
    return pts, failed


def spread(times_s: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Frame times in increasing order, where frames of one time share the gap behind it evenly.

    The number of frames stays: annotations count decoded frames, whatever their timestamps say.
    A gap that has nothing behind it is the median interval.
    """
    times = np.sort(times_s)
    distinct, counts = np.unique(times, return_counts=True)
    if len(distinct) == len(times):
        return times
    gaps = np.diff(distinct)
    last = float(np.median(gaps)) if len(gaps) else 1.0 / 30.0
    gaps = np.append(gaps, last)
    position = np.concatenate([np.arange(n) / n for n in counts])
    return np.repeat(distinct, counts) + position * np.repeat(gaps, counts)


def _fill_missing(pts: list[int | None]) -> Float[np.ndarray, "n"]:
    """Timestamps as floats; a frame without one lies evenly between its neighbours."""
    values = np.array([np.nan if p is None else p for p in pts], np.float64)
    known = np.flatnonzero(~np.isnan(values))
    if len(known) == 0:
        return np.arange(len(values), dtype=np.float64)
    step = 1.0
    if len(known) > 1:
        step = float(np.median(np.diff(values[known]) / np.diff(known)))
    index = np.arange(len(values), dtype=np.float64)
    filled = np.interp(index, known, values[known])
    # np.interp holds the ends; frames there go on at the usual pace.
    first, last = known[0], known[-1]
    filled[:first] = values[first] - step * (first - index[:first])
    filled[last + 1 :] = values[last] + step * (index[last + 1 :] - last)
    return filled


@dataclass(frozen=True)
class MediaInfo:
    """What a video file holds.

    Attributes:
        times_s: (n,) when each frame that decodes is shown, seconds from the container's start.
        fps: frames per second by these times, not by the header or the file's name.
        duration_s: when the last frame ends.
        audio_start_s, audio_end_s: extent of the sound on the same clock, None without sound.
        fixes: what was odd and how it was handled.
        stamped: each frame is found by its timestamp; False where only the order of decoding
            tells which frame is which.
    """

    times_s: Float[np.ndarray, "n"]
    fps: float
    duration_s: float
    audio_start_s: float | None
    audio_end_s: float | None
    fixes: list[Fix]
    stamped: bool = True


def median_interval(times_s: Float[np.ndarray, "n"]) -> float:
    """Seconds from one frame to the next, by the median; a thirtieth for a single frame."""
    return float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0 / 30.0


def mean_fps(times_s: Float[np.ndarray, "n"]) -> float:
    """Frames per second over the whole extent of `times_s`."""
    if len(times_s) < 2:
        return 1.0 / median_interval(times_s)
    return (len(times_s) - 1) / float(times_s[-1] - times_s[0])


def _presentation(
    path: Path, seen: _Packets, header_frames: int, is_avi: bool
) -> tuple[Float[np.ndarray, "n"], list[Fix]]:
    """Timestamps of the frames in stream units, not yet sorted; decodes only if it must."""
    fixes = []
    cut = header_frames > seen.total
    if cut or seen.error:
        what = f"the header says {header_frames} frames, {seen.total} can be read"
        why = f" ({seen.error})" if seen.error else ""
        fixes.append(Fix(REPAIRED, "", f"cut short: {what}{why}; those that decode are used"))
    # AVI has no presentation times; its packets are evenly spaced slots, one for each frame.
    stamps = seen.dts if is_avi else seen.pts
    doubtful = cut or bool(seen.error) or bool(seen.suspect) or None in stamps
    doubtful = doubtful or len(set(stamps)) != len(stamps)
    if stamps and not doubtful and _tail_decodes(path):
        return np.array(stamps, np.float64), fixes
    decoded, failed = _decode_pts(path)
    if not decoded:
        raise InputError(path, "", "no frame of the video decodes")
    if len(decoded) != len(stamps):
        broken = f", {failed} packets are broken" if failed else ""
        what = f"{len(decoded)} frames decode out of {len(stamps)} packets{broken}"
        fixes.append(Fix(REPAIRED, "", f"{what}: the frames that decode count"))
    elif None not in stamps:
        return np.array(stamps, np.float64), fixes
    times = _fill_missing(decoded)
    if is_avi:
        # Decoders shift AVI's slots by their delay.
        times = (
            np.sort(times) - times.min() + min((d for d in seen.dts if d is not None), default=0)
        )
    return times, fixes


def probe(path: Path) -> MediaInfo:
    """Frame times and extent of the sound of a video file.

    Which frames count: those that a decoder shows, because annotations were made on them. The
    packets tell that without decoding: each that an edit list does not hide is one frame, shown at
    its timestamp. Everything is decoded instead when the packets leave doubt: a header with more
    frames than packets, missing or repeated timestamps, empty or corrupt packets, a first one that
    is no key frame, a read error, or a last group of pictures (always decoded) that yields another
    number of frames.
    Frames with the same timestamp share the gap behind it (`spread`).

    Raises:
        InputError: (a UserError) the file cannot be opened or no frame of it decodes.
    """
    path = Path(path)
    with opened(path) as container:
        zero_s = container_start_s(container)
        video = video_stream(path, container)
        sound = container.streams.audio[0] if container.streams.audio else None
        if video.time_base is None:
            raise InputError(path, "", "the video stream has no clock")
        time_base, header_frames = float(video.time_base), video.frames
        is_avi = container.format.name == "avi"
        seen = _demux(container, video)
        start_s = end_s = None
        if sound is not None and sound.time_base is not None and seen.audio_end is not None:
            start_s = float((sound.start_time or 0) * sound.time_base) - zero_s
            end_s = float(seen.audio_end * sound.time_base) - zero_s
    stamps, fixes = _presentation(path, seen, header_frames, is_avi)
    times = stamps * time_base - zero_s
    times_s = spread(times)
    repeated = len(times) - len(np.unique(times))
    if repeated:
        what = f"{repeated} frames repeat the timestamp of another"
        fixes.append(Fix(REPAIRED, "", f"{what}: they share the time up to the next one evenly"))
    pauses = np.flatnonzero(np.diff(times_s) > _PAUSE_S)
    if len(pauses):
        longest = float(np.diff(times_s).max())
        what = f"no frame for {longest:.1f} s" if len(pauses) == 1 else f"{len(pauses)} pauses"
        fixes.append(Fix(NOTE, f"frame {pauses[0] + 1}", f"{what} behind this frame: kept"))
    duration_s = float(times_s[-1]) + median_interval(times_s)
    stamped = not (is_avi or repeated or None in seen.pts)
    return MediaInfo(times_s, mean_fps(times_s), duration_s, start_s, end_s, fixes, stamped)


def frame_times(path: Path) -> Float[np.ndarray, "n"]:
    """When each frame of a video is shown: seconds from the container's start, increasing.

    See `probe` for which frames count. Raises InputError (a UserError) as `probe` does.
    """
    return probe(path).times_s


def _mono(frame: av.AudioFrame) -> Float[np.ndarray, "n"]:
    """The mean of a frame's channels as float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    mono = samples.astype(np.float32).mean(axis=0)
    # A float WAV can hold anything.
    return np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)


class AudioSource:
    """The sound of a WAV or media file, streamed.

    Attributes:
        path: the file.
        sample_rate_hz: of the file.
        start_s: when the first sample sounds, seconds from the container's start (0 for WAV).
        duration_s: length by the timestamps of all packets (lossy codecs may pad a few ms).
        broken_packets: how many did not decode in the latest pass; silence stands for them.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.broken_packets = 0
        with opened(self.path) as container:
            stream = self._stream(container)
            zero_s = container_start_s(container)
            self.sample_rate_hz = int(stream.codec_context.sample_rate)
            if self.sample_rate_hz <= 0 or stream.time_base is None:
                raise InputError(self.path, "", "the sound has no sample rate")
            end = 0
            first = stream.start_time
            try:
                for packet in container.demux(stream):
                    if packet.size and packet.pts is not None:
                        first = packet.pts if first is None else first
                        end = max(end, packet.pts + (packet.duration or 0))
            except DECODER_ERRORS:
                pass  # what is behind a broken place is masked like any end of the sound
            first = first or 0
            self.start_s = float(first * stream.time_base) - zero_s
            self.duration_s = max(float((end - first) * stream.time_base), 0.0)
        if self.duration_s == 0.0:
            raise InputError(self.path, "", "holds no sound")

    def _stream(self, container: av.container.InputContainer) -> av.AudioStream:
        for stream in container.streams.audio:
            if stream.codec_context is not None:
                return stream
        raise InputError(self.path, "", "has no audio stream")

    def _native(self) -> Iterator[Float[np.ndarray, "_"]]:
        """Mono float32 at the file's own rate; gaps between timestamps are silence."""
        rate, written = self.sample_rate_hz, 0
        self.broken_packets = 0
        with opened(self.path) as container:
            stream, zero_s = self._stream(container), container_start_s(container)
            for frame in self._frames(container, stream):
                if frame.sample_rate != rate:
                    message = f"the sample rate changes from {rate} to {frame.sample_rate} Hz"
                    raise InputError(self.path, "", message)
                mono = _mono(frame)
                if frame.pts is not None and frame.time_base is not None:
                    at_s = float(frame.pts * frame.time_base) - zero_s - self.start_s
                    gap_s = at_s - written / rate
                    if _GAP_S < gap_s < _MAX_GAP_S:
                        silent = round(gap_s * rate)
                        for start in range(0, silent, rate):
                            yield np.zeros(min(rate, silent - start), np.float32)
                        written += silent
                    elif gap_s < -_GAP_S:
                        mono = mono[round(-gap_s * rate) :]
                written += len(mono)
                if len(mono):
                    yield mono

    def _frames(
        self, container: av.container.InputContainer, stream: av.AudioStream
    ) -> Iterator[av.AudioFrame]:
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except DECODER_ERRORS:
                    self.broken_packets += 1
                    continue
                yield from frames
        except DECODER_ERRORS:
            self.broken_packets += 1

    def blocks(
        self, sample_rate_hz: int, block_s: float | int = 10.0
    ) -> Iterator[Float[np.ndarray, "_"]]:
        """Streams the sound from its first sample as mono float32.

        Resampled by soxr (HQ), equal to one pass over the whole; n samples at the file's rate
        become n * sample_rate_hz / rate, rounded to the nearest (halves up). Holds
        about one block in memory. May be called again for another pass.

        Args:
            sample_rate_hz: of the blocks.
            block_s: seconds in each block but the last, which is shorter and never empty.
        """
        size = max(round(block_s * sample_rate_hz), 1)
        rest: list[np.ndarray] = []
        held = 0
        for piece in self._resampled(sample_rate_hz):
            rest.append(piece)
            held += len(piece)
            while held >= size:
                joined = np.concatenate(rest)
                yield joined[:size]
                rest, held = [joined[size:]], held - size
        if held:
            yield np.concatenate(rest)

    def _resampled(self, sample_rate_hz: int) -> Iterator[Float[np.ndarray, "_"]]:
        if sample_rate_hz == self.sample_rate_hz:
            yield from self._native()
            return
        resampler = soxr.ResampleStream(
            self.sample_rate_hz, sample_rate_hz, 1, dtype="float32", quality="HQ"
        )
        for piece in self._native():
            yield resampler.resample_chunk(piece)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def open_audio(path: Path) -> AudioSource:
    """The sound of a WAV or media file. Raises InputError (a UserError) if there is none."""
    return AudioSource(path)


@runtime_checkable
class Sound(Protocol):
    """What is needed of a video's sound (`maven_jax.media.container.AudioSource`)."""

    @property
    def start_s(self) -> float:
        """Time of the first sample on the clock of the video's frames."""
        ...

    def blocks(self, sample_rate_hz: int, block_s: float = 10.0) -> Iterator[np.ndarray]:
        """Mono float32 blocks of any lengths, from the start at each call."""
        ...
