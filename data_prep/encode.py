"""From checked videos to a feature store: encode, align to the frames, write; restartable.

Videos are encoded one by one, in blocks of at most `BLOCK_FRAMES` frames, so memory does not grow
with their length. A stored video is never encoded again; one that fails is noted, and the others
go on.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Float32

from data_prep.corpus.check_video import VideoCheck
from data_prep.corpus.extra_targets import extra_frames, fitted, read_extra
from maven_jax.errors import UserError
from maven_jax.features.device import Clock, peak_memory_mib
from maven_jax.features.prefetch import Prefetch
from maven_jax.features.reader import Encoders, RecordingReader
from maven_jax.media.problems import REPAIRED
from maven_jax.progress import Meter, format_duration, meter, say
from maven_jax.store.schema import ExtraTarget, Frames, ModalitySpec
from maven_jax.store.writer import StoreWriter

# The disk is full or gone: every other video would fail too.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# A corpus so many times longer than a trial is worth one.
_TRIAL_FRAMES, _TRIAL_PAYS = 200, 50


class EncodedVideo:
    """A video that threads of its own read and encode, a little ahead of the store.

    Attributes:
        check: the video.
        recording: its files and frame times.
        reader: reads them.
        blocks: what `reader` yields; an error comes where the next block would have.
    """

    _MOST_WAITING = 2  # blocks that wait to be written

    def __init__(self, check: VideoCheck, encoders: Encoders, clock: Clock) -> None:
        """Begins at once."""
        self.check, self.recording = check, check.recording
        self.reader = RecordingReader(self.recording, encoders, clock)
        name = f"encode {check.video.name}"
        self.blocks = Prefetch(self.reader.blocks(), self._MOST_WAITING, name)

    def close(self) -> None:
        """Stops reading."""
        self.blocks.close()


def encode_corpus(
    checks: Sequence[VideoCheck], encoders: Encoders, writer: StoreWriter
) -> dict[str, str]:
    """Stores every video of `checks` that `writer` does not have yet, with progress on screen.

    Args:
        checks: usable videos, all planned in `writer`.
        encoders: one for every modality of the store.
        writer: the store.

    Returns:
        Videos that failed and why; they are also noted in the store (`StoreWriter.drop`).

    Raises:
        UserError: what would stop every other video too: a full disk or device memory.
    """
    trial_rate(checks, encoders, writer)
    clock = Clock()
    done = sum(c.num_frames for c in checks if writer.is_done(c.video.name))
    total = sum(c.num_frames for c in checks)
    if done:
        say(f"{done:,} of {total:,} frames are in the store already")
    began = time.monotonic()
    with meter("encode", total, "frames", initial=done) as progress:
        failed = encode_videos(checks, encoders, writer, clock, progress)
    say(time_table(clock, time.monotonic() - began))
    return failed


def trial_rate(
    checks: Sequence[VideoCheck], encoders: Encoders, writer: StoreWriter
) -> float | None:
    """Says how long encoding will take before it begins; None where a trial would not pay.

    The first frames of a video are encoded twice and thrown away: compiling comes with the first
    time. Sound and words are encoded in longer pieces than a trial, which makes it cautious.

    Returns:
        Frames per second.
    """
    waiting = [c for c in checks if not writer.is_done(c.video.name)]
    total = sum(c.num_frames for c in waiting)
    if total < _TRIAL_PAYS * _TRIAL_FRAMES:
        return None
    check = max(waiting, key=lambda c: (c.video.crops is not None, c.num_frames))
    frames = min(_TRIAL_FRAMES, check.num_frames)
    recording = replace(check.recording, times_s=check.times_s[:frames], annotation=None)
    took_s = 0.0
    try:
        for _ in range(2):
            began = time.monotonic()
            for _ in RecordingReader(recording, encoders, Clock()).blocks():
                pass
            took_s = time.monotonic() - began
    except Exception:  # encoding itself says what is wrong, and costs that video only
        return None
    rate = frames / max(took_s, 1e-9)
    say(
        f"encode: about {rate:,.1f} frames/s in a trial of {frames} frames: "
        f"{format_duration(total / rate)} for the {total:,} frames of {len(waiting):,} videos"
    )
    return rate


class FrameCount:
    """Counts as `Meter` does and shows nothing: another process shows the progress."""

    def __init__(self) -> None:
        self.done: float | int = 0

    def advance(self, amount: float | int = 1, note: str = "") -> None:
        self.done += amount


def encode_videos(
    checks: Sequence[VideoCheck],
    encoders: Encoders,
    writer: StoreWriter,
    clock: Clock,
    progress: Meter | FrameCount,
) -> dict[str, str]:
    """`encode_corpus` without its first and last lines on screen.

    While a video is written and its last batches are on the device, the next one begins, if there
    are cores for it.
    """
    failed: dict[str, str] = {}
    waiting = iter([c for c in checks if not writer.is_done(c.video.name)])

    def begin() -> EncodedVideo | None:
        check = next(waiting, None)
        return None if check is None else EncodedVideo(check, encoders, clock)

    following = None
    try:
        while (video := following or begin()) is not None:
            following = begin() if _cores_to_spare() else None
            reason = _try_to_store(video, writer, clock, progress)
            if reason is not None:
                failed[video.check.video.name] = reason
    finally:
        if following is not None:
            following.close()
    return failed


def _cores_to_spare() -> bool:
    """Whether two videos at a time are faster than one: not where two cores encode as well."""
    return jax.default_backend() != "cpu" or (os.cpu_count() or 1) > 2


def _try_to_store(
    video: EncodedVideo, writer: StoreWriter, clock: Clock, progress: Meter | FrameCount
) -> str | None:
    """Stores a video; if it fails, says why, notes it in the store and returns the reason."""
    before, name = progress.done, video.check.video.name
    try:
        _store(video, writer, clock, progress)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            "the device's memory is full; set a smaller --encoders.visual.batch_size or "
            "--encoders.audio.batch_size"
        ) from error
    except Exception as error:  # one odd file must not cost hours of work on the others
        if isinstance(error, OSError) and error.errno in _FATAL:
            raise UserError(f"{error}; the same command continues") from error
        reason = _reason(error)
        writer.drop(name, reason)
        say(f"FAILED {name}: {reason}")
        progress.advance(before + video.check.num_frames - progress.done)
        return reason
    finally:
        video.close()
    return None


def _reason(error: Exception) -> str:
    """One line; errors that are not the user's come with their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _store(
    video: EncodedVideo, writer: StoreWriter, clock: Clock, progress: Meter | FrameCount
) -> None:
    name, recording = video.check.video.name, video.recording
    extra = extra_values(video.check, writer.plan.modalities)
    with clock("write"), writer.video(name, recording.fps, recording.duration_s) as stored:
        for block in _waited_for(video.blocks, clock):
            frames = slice(stored.num_frames, stored.num_frames + len(block))
            for target, values in extra.items():
                own = extra_frames(values, target, frames)
                block.features[target.name], block.masks[target.name] = own
            stored.append(block)
            progress.advance(len(block), note=name)
        odd = [str(p) for p in video.check.problems if p.severity == REPAIRED]
        stored.notes += odd + video.reader.notes
    for note in video.reader.notes:
        say(f"{name}: {note}")


def extra_values(
    check: VideoCheck, stored: Mapping[str, ModalitySpec]
) -> dict[ExtraTarget, Float32[np.ndarray, "n w"] | None]:
    """The extra targets of a store -> their values of all frames of a video; None without any.

    Raises:
        UserError: a file was changed since it was checked.
    """
    values: dict[ExtraTarget, Float32[np.ndarray, "n w"] | None] = {}
    for target in (spec.target for spec in stored.values()):
        if target is not None:
            path = check.extra.get(target)
            values[target] = path and fitted(read_extra(path, target.name)[1], check.num_frames)
    return values


def _waited_for(blocks: Iterator[Frames], clock: Clock) -> Iterator[Frames]:
    """The blocks; the time until each arrives counts as "wait"."""
    while True:
        with clock("wait"):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def time_table(clock: Clock, wall_s: float) -> str:
    """One line: how busy the encoders were, what ran beside them, the peak memory.

    Args:
        clock: counted the times.
        wall_s: seconds from beginning to end.
    """
    wall_s = max(wall_s, 1e-9)
    device = {name: s / wall_s for name, s in sorted(clock.device.seconds().items())}
    other = {name: s / wall_s for name, s in clock.seconds.items()}
    parts = ", ".join(f"{name} {share:.0%}" for name, share in device.items())
    return (
        f"in {format_duration(wall_s)} the encoders were busy {sum(device.values()):.0%} of the "
        f"time{f' ({parts})' if parts else ''}, compiling took {other.get('compile', 0):.0%}, "
        f"writing {other.get('write', 0):.0%}, and {other.get('decode', 0):.1f} threads were "
        f"decoding; peak memory {peak_memory_mib():,.0f} MiB"
    )
