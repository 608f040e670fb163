"""From checked videos to a feature store: encode, align to the frames, write; restartable.

One video at a time, in blocks of at most `BLOCK_FRAMES` frames, so that memory does not grow with
a video's length. A video that is stored is never encoded again; one that fails is noted, and the
others go on.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_prep.corpus.check import VideoCheck
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.features.ahead import Ahead
from maven_jax.features.clips import ClipEncoder
from maven_jax.features.device import Clock
from maven_jax.features.mel import MelEncoder, RawMel, TsavAudioEncoder, VggishEncoder
from maven_jax.features.per_frame import Track, on_frames
from maven_jax.features.text import BertEncoder, HeldTrack, TextEncoder, TextTrack
from maven_jax.features.visual import CropEncoder, FaceEncoder, RawCrops, VisualEncoder
from maven_jax.features.waveform import AudioEncoder
from maven_jax.media.annotations import read_annotation
from maven_jax.media.container import open_audio
from maven_jax.media.crops import Crops
from maven_jax.media.transcripts import read_transcript
from maven_jax.progress import Meter, format_duration, meter, say
from maven_jax.runtime.compilation import keep_compiled
from maven_jax.store.reader import Frames, ModalitySpec
from maven_jax.store.writer import StoreWriter

MODALITIES = ("visual", "audio", "text")
BLOCK_FRAMES = 512
# Modality → kind of encoder, as recipes name it → class.
KINDS: dict[str, dict[str, type]] = {
    "visual": {
        "swin": VisualEncoder,
        "iresnet50": FaceEncoder,
        "r2plus1d": ClipEncoder,
        "crops": RawCrops,
    },
    "audio": {
        "hubert": AudioEncoder,
        "vggish": VggishEncoder,
        "tsav_resnet18": TsavAudioEncoder,
        "log_mel": RawMel,
    },
    "text": {"roberta": TextEncoder, "bert": BertEncoder},
}
# The disk is full or gone: every other video would fail too.
_FATAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclasses.dataclass(frozen=True)
class Encoders:
    """The encoders of the wanted modalities, None for the others."""

    visual: CropEncoder | ClipEncoder | RawCrops | None
    audio: AudioEncoder | MelEncoder | RawMel | None
    text: TextEncoder | None

    def present(self) -> dict[str, Any]:
        """Modality → encoder, in the fixed order."""
        found = {name: getattr(self, name) for name in MODALITIES}
        return {name: encoder for name, encoder in found.items() if encoder is not None}

    def specs(self) -> dict[str, ModalitySpec]:
        """What the store says about the features."""
        return {
            n: ModalitySpec(n, e.dim, e.spec, e.stored_dtype) for n, e in self.present().items()
        }


def open_encoders(config: ConfigDict, modalities: Sequence[str], workers: int) -> Encoders:
    """Loads the encoders of a recipe in configs/encoders.

    Args:
        config: a section for every modality.
        modalities: those wanted, of `MODALITIES`.
        workers: threads that decode face crops.

    Raises:
        UserError: an unknown modality or key, or weights that cannot be loaded.
    """
    for name in modalities:
        if name not in MODALITIES:
            raise UserError(f"no modality {name!r}{recipes.did_you_mean(name, MODALITIES)}")
        if name not in config:
            raise UserError(f"the encoders' recipe has no section {name!r}")
    keep_compiled()

    def create(name: str, **given: Any) -> Any:
        if name not in modalities:
            return None
        section = config.to_dict()[name]
        encoder = recipes.call(_class_of(name, section), section, f"encoders.{name}", **given)
        say(f"{name}: {_describe(encoder.spec)}, {encoder.dim} per frame")
        return encoder

    return Encoders(
        visual=create("visual", workers=workers), audio=create("audio"), text=create("text")
    )


def _class_of(modality: str, section: dict[str, Any]) -> type:
    """The class of a section's `kind`, which is taken out of it."""
    kinds = KINDS[modality]
    if "kind" not in section:
        raise UserError(f"encoders.{modality} lacks kind, one of {', '.join(kinds)}")
    kind = section.pop("kind")
    if kind not in kinds:
        raise UserError(
            f"encoders.{modality}.kind {kind!r}{recipes.did_you_mean(kind, list(kinds))}"
        )
    return kinds[kind]


def _describe(spec: Mapping[str, Any]) -> str:
    if spec["source"] is None:
        return f"{spec['feature']}, no encoder"
    trained = "random weights, untrained" if spec["untrained"] else spec["source"]
    return f"{spec['encoder']} ({trained}, {spec['dtype']}, sha256 {spec['sha256'][:12]})"


class VideoReader:
    """Reads and encodes one video; `blocks` yields its frames."""

    def __init__(self, check: VideoCheck, encoders: Encoders, clock: Clock) -> None:
        self._check, self._video = check, check.video
        self._encoders, self._clock = encoders, clock
        self._times = np.asarray(check.times_s, np.float64)[: check.num_frames]
        self.notes: list[str] = []

    def blocks(self) -> Iterator[Frames]:
        """All frames in order, in blocks of at most `BLOCK_FRAMES`."""
        targets, target_mask = self._targets()
        streams = self._encoders.present()
        sound = self._sound() if "audio" in streams else None
        text = self._text() if "text" in streams else None
        start = 0
        for features, masks, count in self._visual():
            stop = start + count
            times = self._times[start:stop]
            segment_id = np.full(count, -1, np.int32)
            if sound is not None:
                features["audio"], masks["audio"] = sound.at(times)
            if text is not None:
                features["text"], masks["text"], segment_id = text.at(times)
            yield Frames(
                time_s=times,
                targets=targets[start:stop],
                target_mask=target_mask[start:stop],
                segment_id=segment_id,
                features={name: features[name] for name in streams},
                masks={name: masks[name] for name in streams},
            )
            start = stop

    def _targets(self) -> tuple[np.ndarray, np.ndarray]:
        n = self._check.num_frames
        if self._video.annotation is None:
            return np.zeros((n, 2), np.float32), np.zeros(n, bool)
        annotation = read_annotation(self._video.annotation)
        if len(annotation.values) != n:
            now = f"{len(annotation.values)} frames, {n} when it was checked"
            raise UserError(f"{self._video.annotation}: {now}")
        return annotation.values, annotation.valid

    def _visual(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]]:
        """Blocks of the frames: their visual features and masks (none if not wanted), length."""
        n, encoder = self._check.num_frames, self._encoders.visual
        if encoder is not None and self._video.crops is not None:
            crops = Crops(self._video.crops)
            for values, mask in encoder.blocks(crops, self._times, self._clock, BLOCK_FRAMES):
                yield {"visual": values}, {"visual": mask}, len(mask)
            if crops.broken:
                self.notes.append(f"{crops.broken} crops do not decode (masked)")
            return
        if encoder is not None:
            for values, mask in on_frames((), n, encoder.dim, BLOCK_FRAMES, encoder.stored_dtype):
                yield {"visual": values}, {"visual": mask}, len(mask)
            return
        for start in range(0, n, BLOCK_FRAMES):
            yield {}, {}, min(BLOCK_FRAMES, n - start)

    def _sound(self) -> Track:
        encoder = self._encoders.audio
        assert encoder is not None
        sound = None if self._video.audio is None else open_audio(self._video.audio)
        return encoder.track(sound, self._times, self._clock)

    def _text(self) -> TextTrack | HeldTrack:
        encoder = self._encoders.text
        assert encoder is not None
        path = self._video.transcript
        return encoder.encode(() if path is None else read_transcript(path), self._clock)


class EncodedVideo:
    """A video that is read and encoded by threads of its own, a little ahead of the store.

    Attributes:
        check: the video.
        reader: what reads it.
        blocks: what `reader` yields; an error comes where the next block would have.
    """

    # Blocks that wait to be written.
    _AHEAD = 2

    def __init__(self, check: VideoCheck, encoders: Encoders, clock: Clock) -> None:
        """Begins at once."""
        self.check = check
        self.reader = VideoReader(check, encoders, clock)
        self.blocks = Ahead(self.reader.blocks(), self._AHEAD, f"encode {check.video.name}")

    def close(self) -> None:
        """Stops reading."""
        self.blocks.close()


def extract(
    checks: Sequence[VideoCheck], encoders: Encoders, writer: StoreWriter
) -> dict[str, str]:
    """Stores every video of `checks` that `writer` does not have yet.

    Args:
        checks: usable videos, all planned in `writer`.
        encoders: one for every modality of the store.
        writer: the store.

    Returns:
        Videos that failed and why; they are also noted in the store (`StoreWriter.drop`).

    Raises:
        UserError: what no other video would survive either: full disk, no device memory.
    """
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


class FrameCount:
    """Counts as `Meter` does, and shows nothing: another process shows the progress."""

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
    """`extract` without what it says at the beginning and the end.

    While a video is written and its last batches are on the device, the next one is begun, if
    that has cores to run on.
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
    """Whether two videos at a time are faster than one: not on two cores that encode as well."""
    return jax.default_backend() != "cpu" or (os.cpu_count() or 1) > 2


def _try_to_store(
    video: EncodedVideo, writer: StoreWriter, clock: Clock, progress: Meter | FrameCount
) -> str | None:
    """Stores a video; if it fails, says and notes why, and returns it."""
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
    except Exception as error:  # hours of others' work are not lost to one odd file
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
    """One line; for errors that nobody foresaw, with their kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _store(
    video: EncodedVideo, writer: StoreWriter, clock: Clock, progress: Meter | FrameCount
) -> None:
    check, name = video.check, video.check.video.name
    duration_s = float(check.times_s[-1] - check.times_s[0]) + 1 / check.fps
    with clock("write"), writer.video(name, check.fps, duration_s) as stored:
        for block in _waited_for(video.blocks, clock):
            stored.append(block)
            progress.advance(len(block), note=name)
    for note in video.reader.notes:
        say(f"{name}: {note}")


def _waited_for(blocks: Iterator[Frames], clock: Clock) -> Iterator[Frames]:
    """The blocks; the time until each is there counts as "wait"."""
    while True:
        with clock("wait"):
            block = next(blocks, None)
        if block is None:
            return
        yield block


def time_table(clock: Clock, wall_s: float) -> str:
    """One line: how busy the encoders were, what else was done meanwhile, the most memory needed.

    Args:
        clock: what was counted.
        wall_s: seconds that it took altogether.
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


def peak_memory_mib() -> float:
    """The most resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
