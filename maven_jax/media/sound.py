"""The sound of media files: mono float32 at any rate, streamed, on the clock of the frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import av
import av.container
import numpy as np
import soxr
from jaxtyping import Float

from maven_jax.media.container import DECODER_ERRORS, container_start_s, opened
from maven_jax.media.problems import InputError

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
        start_s: time of the first sample, seconds from the container's start (0 for WAV).
        duration_s: length by the timestamps of all packets (lossy codecs may pad a few ms).
        broken_packets: how many did not decode in the latest pass; silence replaces them.
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
                pass  # what follows a broken place is masked, as after the end of any sound
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
