"""The sound of media files: mono float32 at any rate, streamed, on the clock of the frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
import av.container
import numpy as np
import soxr
from jaxtyping import Bool, Float

from maven_jax.media.container import (
    DECODER_ERRORS,
    MAX_DURATION_S,
    audio_stream,
    check_clock,
    container_start_s,
    error_text,
    opened,
    other_tracks,
)
from maven_jax.media.problems import InputError

# What microphones and instruments have; a header can claim anything.
SAMPLE_RATES_HZ = (1_000, 768_000)
MAX_CHANNELS = 64
# Full scale is 1. A float WAV can hold anything, and a sum of tracks some times as much; beyond
# this it is no sound, or one in other units.
MAX_AMPLITUDE = 100.0
# Sound whose timestamps leave a gap (or overlap) of more than this is padded (or cut).
_GAP_S = 0.05
_MAX_GAP_S = 3600.0


@runtime_checkable
class Sound(Protocol):
    """What is needed of a video's sound (`AudioSource`)."""

    @property
    def start_s(self) -> float:
        """Time of the first sample on the clock of the video's frames."""
        ...

    def blocks(self, sample_rate_hz: int, block_s: float | int = 10.0) -> Iterator[np.ndarray]:
        """Mono float32 blocks of any lengths, from the start at each call."""
        ...


def _mono(frame: av.AudioFrame) -> tuple[Float[np.ndarray, "n"], bool]:
    """The mean of a frame's channels as float32 in [-1, 1], and whether it can be used.

    What is no number or far beyond full scale becomes silence.
    """
    samples = frame.to_ndarray()
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    usable = np.abs(samples) <= MAX_AMPLITUDE  # False for NaN
    mono = np.where(usable, samples, 0).astype(np.float32).mean(axis=0)
    if frame.is_corrupt:
        mono = np.zeros_like(mono)
    return mono, bool(usable.all()) and not frame.is_corrupt


class AudioSource:
    """The sound of a WAV or media file, streamed.

    Attributes:
        path: the file.
        sample_rate_hz: of the file, by its header.
        start_s: time of the first sample, seconds from the container's start (0 for WAV).
        duration_s: length by the timestamps of all packets (lossy codecs may pad a few ms).
        damaged_s: (start, end) of each stretch that does not decode or holds samples that are no
            sound, on the frames' clock, as far as they have been read. Silence replaces it.
    """

    def __init__(self, path: Path, span_s: tuple[float, float] | None = None):
        """Reads the packets' times.

        Args:
            path: the file.
            span_s: the part to read, from when to when on the frames' clock; None for all.
        """
        self.path = Path(path)
        self.damaged_s: list[tuple[float, float]] = []
        self._notes: dict[str, None] = {}  # in order, each once however often the sound is read
        with opened(self.path) as container:
            stream = audio_stream(self.path, container)
            zero_s = container_start_s(container)
            if stream.time_base is None:
                raise InputError(self.path, "", "the sound has no clock")
            self._check_header(stream)
            self.sample_rate_hz = int(stream.codec_context.sample_rate)
            for note in other_tracks(stream, container.streams.audio):
                self._note(note)
            end, now_s = 0, -math.inf
            first = stream.start_time
            try:
                for packet in container.demux(stream):
                    now_s = check_clock(self.path, packet, now_s)
                    if packet.size and packet.pts is not None:
                        first = packet.pts if first is None else first
                        end = max(end, packet.pts + (packet.duration or 0))
            except InputError:
                raise
            except DECODER_ERRORS as error:
                # What follows a broken place is masked, as after the end of any sound.
                self._note(f"the sound cannot be read to its end ({error_text(error)})")
            first = first or 0
            self.start_s = self._first_s = float(first * stream.time_base) - zero_s
            self.duration_s = max(float((end - first) * stream.time_base), 0.0)
        self._skipped, self._count = 0, math.inf
        if span_s is not None:
            self._take(*span_s)
        if self.duration_s == 0.0:
            raise InputError(self.path, "", "holds no sound")
        if self.duration_s > MAX_DURATION_S:
            raise InputError(self.path, "", f"claims {self.duration_s:.0f} s of sound")

    def _take(self, start_s: float, end_s: float) -> None:
        """Leaves out what lies before and behind a part."""
        rate, last_s = self.sample_rate_hz, self._first_s + self.duration_s
        self._skipped = max(round((start_s - self._first_s) * rate), 0)
        self.start_s = self._first_s + self._skipped / rate
        self.duration_s = max(min(last_s, end_s) - self.start_s, 0.0)
        self._count = round(self.duration_s * rate)

    def _check_header(self, stream: av.AudioStream) -> None:
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        self._check_rate(rate)
        if channels > MAX_CHANNELS:
            message = f"{channels} channels of sound are too many; at most {MAX_CHANNELS}"
            raise InputError(self.path, "", message)

    def _check_rate(self, rate: int) -> None:
        least, most = SAMPLE_RATES_HZ
        if not least <= rate <= most:
            message = f"a sample rate of {rate:,} Hz; expected {least:,} to {most:,}"
            raise InputError(self.path, "", message)

    def is_damaged(self, times_s: Float[np.ndarray, "t"]) -> Bool[np.ndarray, "t"]:
        """Whether the sound at each of these times cannot be used, as `damaged_s` says."""
        if not self.damaged_s:
            return np.zeros(len(times_s), bool)
        starts_s, ends_s = np.array(self.damaged_s).T
        latest = np.searchsorted(starts_s, times_s, side="right") - 1
        return (latest >= 0) & (times_s < ends_s[latest])

    def notes(self) -> list[str]:
        """What was odd as far as the sound has been read, in sentences."""
        notes = [*self._notes]
        if self.damaged_s:
            seconds = sum(end_s - start_s for start_s, end_s in self.damaged_s)
            notes.append(
                f"{seconds:.2f} s of the sound (first at {self.damaged_s[0][0]:.2f} s) do not "
                "decode or are no numbers within 100 times full scale (masked)"
            )
        return notes

    def _note(self, note: str) -> None:
        self._notes[note] = None

    def _damage(self, start_s: float, end_s: float) -> None:
        """Notes a stretch that no pass has met, joined with the one before if they touch."""
        if not self.damaged_s or start_s > self.damaged_s[-1][1] + 1e-3:
            self.damaged_s.append((start_s, end_s))
        elif end_s > self.damaged_s[-1][1]:
            # In place: another thread may be reading.
            self.damaged_s[-1] = (self.damaged_s[-1][0], end_s)

    def _native(self) -> Iterator[Float[np.ndarray, "_"]]:
        """Mono float32 at the header's rate; gaps between timestamps are silence."""
        rate, now_s, loudest, silent_s = self.sample_rate_hz, 0.0, 0.0, 0.0
        current, resampler = rate, None
        with opened(self.path) as container:
            stream, zero_s = audio_stream(self.path, container), container_start_s(container)
            for frame in self._frames(container, stream, zero_s):
                if frame.sample_rate != current:
                    self._check_rate(frame.sample_rate)
                    if resampler is not None:
                        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                    change = f"from {current} to {frame.sample_rate} Hz"
                    at_s = f"{self._first_s + now_s:.2f} s"
                    self._note(f"the sample rate changes {change} at {at_s}: resampled")
                    current = frame.sample_rate
                    resampler = None if current == rate else _resampler(current, rate)
                mono, usable = _mono(frame)
                if frame.pts is not None and frame.time_base is not None:
                    at_s = float(frame.pts * frame.time_base) - zero_s - self._first_s
                    gap_s = at_s - now_s
                    if gap_s >= _MAX_GAP_S:
                        message = (
                            f"no sound for {gap_s:,.0f} s behind {self._first_s + now_s:.2f} s"
                        )
                        raise InputError(self.path, "", message)
                    if gap_s > _GAP_S:
                        silent = round(gap_s * rate)
                        for start in range(0, silent, rate):
                            yield np.zeros(min(rate, silent - start), np.float32)
                        now_s, silent_s = now_s + silent / rate, silent_s + gap_s
                    elif gap_s < -_GAP_S:
                        mono = mono[round(-gap_s * current) :]
                end_s = now_s + len(mono) / current
                if not usable:
                    self._damage(self._first_s + now_s, self._first_s + end_s)
                now_s = end_s
                loudest = max(loudest, float(np.abs(mono).max(initial=0)))
                if len(mono):
                    yield mono if resampler is None else resampler.resample_chunk(mono)
            if resampler is not None:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        if silent_s:
            self._note(f"{silent_s:.2f} s without sound between its parts are silence")
        if loudest == 0:
            self._note("the sound is silent throughout")

    def _frames(
        self, container: av.container.InputContainer, stream: av.AudioStream, zero_s: float
    ) -> Iterator[av.AudioFrame]:
        # Formats that carry checksums fail where those are wrong.
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except DECODER_ERRORS:
                    if packet.pts is not None and packet.time_base is not None:
                        start_s = float(packet.pts * packet.time_base) - zero_s
                        self._damage(
                            start_s, start_s + float((packet.duration or 0) * packet.time_base)
                        )
                    continue
                yield from frames
        except DECODER_ERRORS:
            return  # `__init__` noted it

    def blocks(
        self, sample_rate_hz: int, block_s: float | int = 10.0
    ) -> Iterator[Float[np.ndarray, "_"]]:
        """Streams the sound from its first sample as mono float32.

        Resampled by soxr (HQ), with the result of one pass over the whole: n samples at the file's
        rate become n * sample_rate_hz / rate, rounded to the nearest (halves up). About one block
        is in memory at a time. Every call starts anew.

        Args:
            sample_rate_hz: of the blocks.
            block_s: seconds in each block but the last, which is shorter and never empty.
        """
        size = max(round(block_s * sample_rate_hz), 1)
        pending: list[np.ndarray] = []
        count = 0
        for piece in self._resampled(sample_rate_hz):
            pending.append(piece)
            count += len(piece)
            while count >= size:
                joined = np.concatenate(pending)
                yield joined[:size]
                pending, count = [joined[size:]], count - size
        if count:
            yield np.concatenate(pending)

    def _part(self) -> Iterator[Float[np.ndarray, "_"]]:
        """Of `_native`, what was asked for."""
        skip, left = self._skipped, self._count
        for piece in self._native():
            piece, skip = piece[skip:], max(skip - len(piece), 0)
            if len(piece) >= left:
                yield piece[: int(left)]
                return
            left -= len(piece)
            if len(piece):
                yield piece

    def _resampled(self, sample_rate_hz: int) -> Iterator[Float[np.ndarray, "_"]]:
        if sample_rate_hz == self.sample_rate_hz:
            yield from self._part()
            return
        resampler = _resampler(self.sample_rate_hz, sample_rate_hz)
        for piece in self._part():
            yield resampler.resample_chunk(piece)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _resampler(from_hz: int, to_hz: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")


def open_audio(path: Path, span_s: tuple[float, float] | None = None) -> AudioSource:
    """The sound of a WAV or media file, or of a part of it (from when to when).

    Raises:
        InputError: (a UserError) there is none.
    """
    return AudioSource(path, span_s)
