"""One recording, block by block of frames: annotated targets and features of every modality."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.errors import UserError, did_you_mean
from maven_jax.features.clips import ClipEncoder
from maven_jax.features.device import Clock
from maven_jax.features.grey_faces import GreyFaceEncoder
from maven_jax.features.mel import MelEncoder, RawMel, TsavAudioEncoder, VggishEncoder
from maven_jax.features.model_files import check_source
from maven_jax.features.opensmile import OpenSmile
from maven_jax.features.per_frame import FeatureStream, on_frames
from maven_jax.features.text import BertEncoder, HeldWordStream, TextEncoder, WordStream
from maven_jax.features.visual import CropEncoder, FaceEncoder, RawCrops, VisualEncoder
from maven_jax.features.waveform import AudioEncoder
from maven_jax.features.whisper import WhisperEncoder
from maven_jax.media.annotations import read_annotation
from maven_jax.media.crops import Crops
from maven_jax.media.recording import Recording
from maven_jax.media.sound import AudioSource, open_audio
from maven_jax.media.transcripts import read_transcript
from maven_jax.progress import say
from maven_jax.runtime.compilation import keep_compiled
from maven_jax.store.schema import Frames, ModalitySpec

MODALITIES = ("visual", "audio", "text")
BLOCK_FRAMES = 512
# Modality → kind of encoder, as recipes name it → class.
KINDS: dict[str, dict[str, type]] = {
    "visual": {
        "swin": VisualEncoder,
        "vit": VisualEncoder,
        "vit_mae": VisualEncoder,
        "clip": VisualEncoder,
        "clip_vision_model": VisualEncoder,
        "dinov2": VisualEncoder,
        "dinov2_with_registers": VisualEncoder,
        "swinv2": VisualEncoder,
        "convnext": VisualEncoder,
        "efficientnet": FaceEncoder,
        "iresnet50": FaceEncoder,
        "mini_xception": GreyFaceEncoder,
        "r2plus1d": ClipEncoder,
        "videomae": ClipEncoder,
        "crops": RawCrops,
    },
    "audio": {
        "hubert": AudioEncoder,
        "wav2vec2": AudioEncoder,
        "wavlm": AudioEncoder,
        "whisper": WhisperEncoder,
        "vggish": VggishEncoder,
        "tsav_resnet18": TsavAudioEncoder,
        "log_mel": RawMel,
        "opensmile": OpenSmile,
    },
    "text": {
        "roberta": TextEncoder,
        "xlm-roberta": TextEncoder,
        "bert": BertEncoder,
        "mpnet": TextEncoder,
        "deberta-v2": TextEncoder,
        "modernbert": TextEncoder,
    },
}


@dataclasses.dataclass(frozen=True)
class Encoders:
    """An encoder for each modality to encode, None for the others."""

    visual: CropEncoder | ClipEncoder | RawCrops | None
    audio: AudioEncoder | MelEncoder | RawMel | OpenSmile | None
    text: TextEncoder | None

    def present(self) -> dict[str, Any]:
        """Modality → encoder, in the fixed order."""
        encoders = {name: getattr(self, name) for name in MODALITIES}
        return {name: encoder for name, encoder in encoders.items() if encoder is not None}

    def specs(self) -> dict[str, ModalitySpec]:
        """What the store says about the features."""
        return {
            n: ModalitySpec(n, e.dim, e.spec, e.stored_dtype) for n, e in self.present().items()
        }


def open_encoders(config: ConfigDict, modalities: Sequence[str], workers: int) -> Encoders:
    """Loads the encoders of a recipe in configs/encoders.

    Args:
        config: has a section for every modality.
        modalities: those to open, of `MODALITIES`.
        workers: threads that decode face crops.

    Raises:
        UserError: an unknown modality or key, or weights that cannot be loaded.
    """
    for name in modalities:
        if name not in MODALITIES:
            raise UserError(f"no modality {name!r}{did_you_mean(name, MODALITIES)}")
        if name not in config:
            raise UserError(f"the encoders' recipe has no section {name!r}")
    sections = {name: config.to_dict()[name] for name in MODALITIES if name in modalities}
    # All of them before the first download or compilation.
    planned = {name: _plan(name, section, workers) for name, section in sections.items()}
    for name, section in sections.items():
        _check_source(name, section)
    keep_compiled()
    opened: dict[str, Any] = dict.fromkeys(MODALITIES)
    for name, (cls, values, given) in planned.items():
        opened[name] = encoder = recipes.call(cls, values, f"encoders.{name}", **given)
        say(f"{name}: {_describe(encoder.spec)}, {encoder.dim} per frame")
    return Encoders(**opened)


def _plan(
    modality: str, section: dict[str, Any], workers: int
) -> tuple[type, dict[str, Any], dict[str, Any]]:
    """The class of a section's `kind`, the section's values, and what comes from elsewhere."""
    kinds = KINDS[modality]
    if "kind" not in section:
        raise UserError(f"encoders.{modality} lacks kind, one of {', '.join(kinds)}")
    kind = section["kind"]
    if kind not in kinds:
        close = did_you_mean(str(kind), list(kinds)) if isinstance(kind, str) else ""
        close = "" if close.startswith("; known") else close
        raise UserError(
            f"encoders.{modality}.kind {kind!r}: expected one of {', '.join(kinds)}{close}"
        )
    given: dict[str, Any] = {"workers": workers} if modality == "visual" else {}
    if "kind" in inspect.signature(kinds[kind]).parameters:
        given["kind"] = kind
    values = {k: v for k, v in section.items() if k != "kind"}
    recipes.check_keys(kinds[kind], values, f"encoders.{modality}", tuple(given))
    return kinds[kind], values, given


def _check_source(modality: str, section: Mapping[str, Any]) -> None:
    if "source" not in section:
        return
    source, kind = section["source"], section["kind"]
    if not isinstance(source, str):
        raise UserError(f"encoders.{modality}.source={source!r}: expected a folder or a hub id")
    try:
        check_source(getattr(KINDS[modality][kind], "kind", kind), source)
    except UserError as error:
        raise UserError(f"encoders.{modality}.source: {error}") from None


def _describe(spec: Mapping[str, Any]) -> str:
    if spec["source"] is None:
        return f"{spec['feature']}, no encoder"
    trained = "random weights, untrained" if spec["untrained"] else spec["source"]
    return f"{spec['encoder']} ({trained}, {spec['dtype']}, sha256 {spec['sha256'][:12]})"


class RecordingReader:
    """Reads and encodes one recording; `blocks` yields its frames."""

    def __init__(self, recording: Recording, encoders: Encoders, clock: Clock) -> None:
        """Reads nothing yet; `clock` takes the time spent."""
        self._recording, self._encoders, self._clock = recording, encoders, clock
        self._times = np.asarray(recording.times_s, np.float64)
        self._crops: Crops | None = None
        self._source: AudioSource | None = None
        self._words: WordStream | HeldWordStream | None = None

    @property
    def notes(self) -> list[str]:
        """What was odd in the files that have been read so far, in sentences."""
        crops = [] if self._crops is None else self._crops.notes()
        sound = [] if self._source is None else self._source.notes()
        words = [] if self._words is None else self._words.notes
        return [*crops, *sound, *words]

    def blocks(self) -> Iterator[Frames]:
        """All frames in order, in blocks of at most `BLOCK_FRAMES`."""
        targets, target_mask = self._targets()
        streams = self._encoders.present()
        sound = self._sound() if "audio" in streams else None
        text = self._words = self._text() if "text" in streams else None
        start = 0
        for features, masks, count in self._visual():
            stop = start + count
            times = self._times[start:stop]
            segment_id = np.full(count, -1, np.int32)
            if sound is not None:
                features["audio"], masks["audio"] = sound.at(times)
                if self._source is not None:
                    masks["audio"] = masks["audio"] & ~self._source.is_damaged(times)
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
        n, path = len(self._times), self._recording.annotation
        if path is None:
            return np.zeros((n, 2), np.float32), np.zeros(n, bool)
        annotation = read_annotation(path)
        if len(annotation.values) != n:
            raise UserError(f"{path}: {len(annotation.values)} frames, {n} when it was checked")
        return annotation.values, annotation.valid

    def _visual(self) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]]:
        """Consecutive frames: visual features and masks (empty without encoder), and how many."""
        n, encoder = len(self._times), self._encoders.visual
        if encoder is not None and self._recording.crops is not None:
            crops = self._crops = Crops(self._recording.crops, first=self._recording.first_crop)
            for values, mask in encoder.blocks(crops, self._times, self._clock, BLOCK_FRAMES):
                yield {"visual": values}, {"visual": mask}, len(mask)
            return
        if encoder is not None:
            for values, mask in on_frames((), n, encoder.dim, BLOCK_FRAMES, encoder.stored_dtype):
                yield {"visual": values}, {"visual": mask}, len(mask)
            return
        for start in range(0, n, BLOCK_FRAMES):
            yield {}, {}, min(BLOCK_FRAMES, n - start)

    def _sound(self) -> FeatureStream:
        encoder = self._encoders.audio
        assert encoder is not None
        path = self._recording.audio
        self._source = None if path is None else open_audio(path, self._recording.span_s)
        return encoder.stream(self._source, self._times, self._clock)

    def _text(self) -> WordStream | HeldWordStream:
        encoder = self._encoders.text
        assert encoder is not None
        path = self._recording.transcript
        return encoder.encode(() if path is None else read_transcript(path), self._clock)
