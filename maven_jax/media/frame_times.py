"""When each frame of a video is shown, by the container's own timestamps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.container
import numpy as np
from jaxtyping import Float

from maven_jax.media.container import (
    DECODER_ERRORS,
    MAX_DURATION_S,
    MAX_FPS,
    MAX_FRAMES,
    check_clock,
    container_start_s,
    error_text,
    opened,
    other_tracks,
    video_stream,
    video_streams,
)
from maven_jax.media.problems import NOTE, REPAIRED, Fix, InputError

# Frames further apart than this are worth a note: the clock may be broken.
_PAUSE_S = 10.0
# A header that promises so much more than the packets hold is of a file that was cut short.
_SHORT_S = 0.5
# FFmpeg's numbers of the transfer functions that are made for brighter screens.
_HDR = {16: "PQ", 18: "HLG"}


@dataclass
class _Packets:
    """What one pass over a file's packets showed; timestamps are in the streams' own units."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    total: int = 0
    suspect: str = ""
    audio_end: int | None = None
    error: str = ""


def _demux(path: Path, container: av.container.InputContainer, video: av.VideoStream) -> _Packets:
    """Reads all packets and decodes none; a read error ends the list and is recorded."""
    seen, now_s = _Packets(), -math.inf
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
                now_s = check_clock(path, packet, now_s)
                if seen.total == 0 and not packet.is_keyframe:
                    seen.suspect = "no key frame at the start"
                seen.total += 1
                if seen.total > MAX_FRAMES:
                    raise InputError(path, "", f"more than {MAX_FRAMES:,} frames are too many")
                if packet.is_corrupt:
                    seen.suspect = "a corrupt packet"
                # An edit list hides these: they are decoded for reference and never shown.
                if not packet.is_discard:
                    seen.pts.append(packet.pts)
                    seen.dts.append(packet.dts)
    except InputError:
        raise
    except DECODER_ERRORS as error:
        seen.error = error_text(error)
    return seen


def _tail_decodes(path: Path) -> bool:
    """Whether the last group of pictures yields a frame for each of its packets.

    A file whose end was never written (a download that reserved its space) has all packets in its
    index, but the last ones are empty.
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
    """Frame times in increasing order; frames of equal time share the gap behind them evenly.

    The number of frames stays: annotations count decoded frames, whatever their timestamps say.
    The gap behind the last frame is the median interval.
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
    """Timestamps as floats; frames without one are spaced evenly between their neighbours."""
    values = np.array([np.nan if p is None else p for p in pts], np.float64)
    stamped = np.flatnonzero(~np.isnan(values))
    if len(stamped) == 0:
        return np.arange(len(values), dtype=np.float64)
    step = 1.0
    if len(stamped) > 1:
        step = float(np.median(np.diff(values[stamped]) / np.diff(stamped)))
    index = np.arange(len(values), dtype=np.float64)
    filled = np.interp(index, stamped, values[stamped])
    # np.interp repeats the value at the ends; frames there go on at the median pace.
    first, last = stamped[0], stamped[-1]
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
        stamped: timestamps identify the frames; if False, only the order of decoding does.
        first: number in the file of the frame that `times_s` begins with; None for all frames.
    """

    times_s: Float[np.ndarray, "n"]
    fps: float
    duration_s: float
    audio_start_s: float | None
    audio_end_s: float | None
    fixes: list[Fix]
    stamped: bool = True
    first: int | None = None


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
    """Timestamps of the frames in stream units, unsorted; decodes only if it must."""
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


def _transfer(video: av.VideoStream) -> list[str]:
    """A note on pictures of high dynamic range."""
    name = _HDR.get(int(video.codec_context.color_trc or 0))
    rule = "pictures are read without tone mapping, which dims them; convert the video to SDR"
    return [f"high dynamic range ({name}): {rule}"] if name else []


def _joined(path: Path) -> list[str]:
    """A note on an MP4 behind which another one begins: FFmpeg reads the first alone."""
    at, size = 0, path.stat().st_size
    with open(path, "rb") as file:
        while at + 16 <= size:
            file.seek(at)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4]), header[4:8]
            if kind == b"ftyp" and at > 0:
                rule = "as in recordings joined by `cat`; what only its index lists is not read"
                return [f"another file begins at byte {at:,}, {rule}"]
            length = int.from_bytes(header[8:]) if length == 1 else length
            if length < 8:
                break
            at += length
    return []


def probe(path: Path) -> MediaInfo:
    """Frame times and extent of the sound of a video file.

    Frames count if a decoder shows them, because annotations were made on those. Packets usually
    tell which they are without decoding: each that an edit list does not hide is one frame, shown
    at its timestamp. The whole video is decoded when the packets leave doubt: a header with more
    frames than packets, missing or repeated timestamps, empty or corrupt packets, a first packet
    that is no key frame, a read error, or a last group of pictures (always decoded) that yields
    another number of frames. Frames with the same timestamp share the gap behind it (`spread`).

    Raises:
        InputError: (a UserError) the file cannot be opened, no frame of it decodes, its clock
            starts again, or it claims what no video has.
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
        odd = other_tracks(video, video_streams(container)) + _transfer(video) + _joined(path)
        header_s = (container.duration or 0) / av.time_base
        seen = _demux(path, container, video)
        start_s = end_s = None
        if sound is not None and sound.time_base is not None and seen.audio_end is not None:
            start_s = float((sound.start_time or 0) * sound.time_base) - zero_s
            end_s = float(seen.audio_end * sound.time_base) - zero_s
    stamps, fixes = _presentation(path, seen, header_frames, is_avi)
    fixes += [Fix(NOTE, "", message) for message in odd]
    times = stamps * time_base - zero_s
    times_s = spread(times)
    if mean_fps(times_s) > MAX_FPS or times_s[-1] - times_s[0] > MAX_DURATION_S:
        what = f"{len(times_s):,} frames in {times_s[-1] - times_s[0]:,.4g} s"
        raise InputError(path, "", f"{what}: the timestamps are not those of a video")
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
    held_s = max(duration_s, end_s or 0.0)
    if header_s > held_s + _SHORT_S and not any(fix.message.startswith("cut") for fix in fixes):
        what = f"the header says {header_s:.2f} s, pictures and sound end at {held_s:.2f} s"
        fixes.append(Fix(REPAIRED, "", f"cut short: {what}"))
    stamped = not (is_avi or repeated or None in seen.pts)
    return MediaInfo(times_s, mean_fps(times_s), duration_s, start_s, end_s, fixes, stamped)


def frame_times(path: Path) -> Float[np.ndarray, "n"]:
    """When each frame of a video is shown: seconds from the container's start, increasing.

    See `probe` for which frames count. Raises InputError (a UserError) as `probe` does.
    """
    return probe(path).times_s
