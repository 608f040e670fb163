"""A trained model on a user's own media: decode, crop, encode, predict window by window, blend.

Features come from the same code as those of training (`features.reader.VideoReader`) and meet the
same windows, so a video that is predicted here scores as it would from a feature store. Everything
streams: face crops go through a folder on disk, features are forgotten once their windows are done.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from ml_collections import ConfigDict

from data_prep.corpus.check_video import VideoCheck
from data_prep.corpus.layout import Video
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.evaluation.smoothing import as_widths, box_filter
from maven_jax.features.device import Clock, peak_memory_mib
from maven_jax.features.reader import Encoders, VideoReader, open_encoders
from maven_jax.features.text import timed_words
from maven_jax.media.align import segment_ids
from maven_jax.media.container import open_audio
from maven_jax.media.crops import Crops
from maven_jax.media.cut_faces import cut_faces
from maven_jax.media.find_faces import open_detector
from maven_jax.media.recording import Material, open_material
from maven_jax.media.speech_to_text import transcribe
from maven_jax.media.track_faces import ChosenFace
from maven_jax.media.transcripts import Segment, Word, read_transcript
from maven_jax.progress import meter, say
from maven_jax.runs.trained_model import TrainedModel, open_model
from maven_jax.store.schema import ModalitySpec, VideoEntry
from maven_jax.video.prediction import VideoPrediction
from maven_jax.video.reel import Reel
from maven_jax.video.window_mean import WindowedModel

# What makes the features of two encoders the same; their versions and places do not.
_IDENTITY = ("encoder", "sha256", "feature", "dtype", "preprocessing")


@dataclasses.dataclass(frozen=True)
class _Track:
    """A face that is to be predicted and its crops; without pictures, neither."""

    face: ChosenFace
    crops: Path | None


class Predictor:
    """Predicts media with one trained model; made by `load`.

    Attributes:
        model: the trained model.
        encoders: those that its features came from in training.
    """

    def __init__(self, model: TrainedModel, encoders: Encoders):
        self.model, self.encoders = model, encoders
        self._windowed = WindowedModel(model)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model takes, in its order."""
        return tuple(self.model.trained_on.modalities)

    def predict(self, media: str | os.PathLike[str], **options: Any) -> VideoPrediction:
        """Valence and arousal of every frame, for one face; see `predict_faces` for `options`.

        Raises:
            UserError: `face="all"`, or as `predict_faces` does.
        """
        if options.get("face") == "all":
            raise UserError('face="all" gives several predictions: predict_faces returns them')
        return self.predict_faces(media, **options)[0]

    def predict_faces(
        self,
        media: str | os.PathLike[str],
        *,
        transcript: str | os.PathLike[str] | None = None,
        asr: str | os.PathLike[str] | None = None,
        face: str = "largest",
        face_model: str | os.PathLike[str] | None = None,
        crops: str | os.PathLike[str] | None = None,
        fps: float | int | None = None,
        smooth: bool | tuple[int, int] | None = None,
        contributions: bool = False,
    ) -> list[VideoPrediction]:
        """Valence and arousal of every frame, for each of the chosen faces.

        Args:
            media: a video, a sound file or a folder of face crops.
            transcript: what is said (.srt, .vtt, .json, .txt).
            asr: folder of a Whisper model that listens, instead of a transcript.
            face: `largest`, `longest`, `all`, or the number of a face.
            face_model: YuNet's ONNX file; None for OpenCV's Haar cascade.
            crops: a folder of the video's face crops, cut elsewhere.
            fps: frames per second of a folder of crops, or of sound alone.
            smooth: widths in frames of the box filters of valence and arousal; True for those that
                `maven-jax tune-smoothing` chose, None for those that the recipe evaluates with, if
                any, False for none.
            contributions: predict once more without each modality.

        Raises:
            UserError: a file that cannot be used, nothing that the model takes, or no such face.
        """
        began, folder = time.monotonic(), None if crops is None else Path(crops)
        widths = self._widths(smooth)
        material = open_material(Path(media), crops=folder, fps=fps)
        with tempfile.TemporaryDirectory(prefix="maven_jax-") as scratch:
            words = self._transcript(material, transcript, asr, Path(scratch))
            segments = () if words is None else read_transcript(words)
            self._check_something(material, words)
            tracks = self._tracks(material, face, face_model, Path(scratch))
            shared = time.monotonic() - began
            results = []
            for track in tracks:
                began = time.monotonic()
                found = self._predict_track(material, track, words, segments, contributions)
                seconds = shared / len(tracks) + time.monotonic() - began
                results.append(_finished(found, material, widths, seconds))
            return results

    def _widths(self, smooth: bool | tuple[int, int] | None) -> tuple[int, int] | None:
        if smooth is None:
            recipe = tuple(self.model.config.eval.smooth_frames)
            return recipe if any(recipe) else None
        if smooth is True:
            tuned = self.model.tuned_frames()
            if tuned is None:
                raise UserError(
                    f"{self.model.source}: nobody chose smoothing widths; run `maven-jax "
                    "tune-smoothing`, or give two numbers of frames"
                )
            return tuned
        if smooth is False:
            return None
        return as_widths(smooth, "smooth")

    def _transcript(
        self,
        material: Material,
        transcript: str | os.PathLike[str] | None,
        asr: str | os.PathLike[str] | None,
        scratch: Path,
    ) -> Path | None:
        if transcript is not None and asr is not None:
            raise UserError("a transcript and a speech recogniser: one of both is wanted")
        if transcript is not None:
            return Path(transcript)
        if asr is None:
            return None
        if material.audio is None:
            say(f"{material.source.name}: no sound, so nothing for the speech recogniser")
            return None
        segments = transcribe(open_audio(material.audio), Path(asr))
        path = scratch / "transcript.json"
        path.write_text(json.dumps([dataclasses.asdict(s) for s in segments]))
        return path

    def _check_something(self, material: Material, words: Path | None) -> None:
        """Raises UserError if the material has nothing that the model takes."""
        there = {
            "visual": material.info is not None or material.crops is not None,
            "audio": material.audio is not None,
            "text": words is not None,
        }
        if not any(there.get(name) for name in self.modalities):
            has = ", ".join(name for name, present in there.items() if present) or "nothing"
            raise UserError(
                f"{material.source}: has {has}, and the model of {self.model.source} takes "
                f"{', '.join(self.modalities)}"
            )

    def _tracks(
        self,
        material: Material,
        choice: str,
        face_model: str | os.PathLike[str] | None,
        scratch: Path,
    ) -> list[_Track]:
        n = len(material.times_s)
        if material.crops is not None:
            return [_Track(_given_crops(material.crops, n), material.crops)]
        if material.info is None or "visual" not in self.modalities:
            return [_Track(_nobody(n), None)]
        detector = open_detector(None if face_model is None else Path(face_model))
        with meter(f"{material.source.name}: finding faces", n, "frames") as m:
            found = cut_faces(
                material.source,
                material.info,
                scratch,
                detector=detector,
                choice=choice,
                advance=m.advance,
            )
        return [_Track(face, crops) for face, crops in found]

    def _predict_track(
        self,
        material: Material,
        track: _Track,
        words: Path | None,
        segments: Sequence[Segment],
        contributions: bool,
    ) -> VideoPrediction:
        """One face; facts, smoothing and what that needs are left to `_finished`."""
        n, name = len(material.times_s), material.source.name
        video = Video(
            name=name,
            stem=material.source.stem,
            split="test",
            crops=track.crops,
            media=material.source,
            audio=material.audio,
            transcript=words,
        )
        check = VideoCheck(video, num_frames=n, times_s=material.times_s, fps=material.fps)
        reader = VideoReader(check, self.encoders, Clock())
        specs = {m: self.encoders.specs()[m] for m in self.modalities}
        reel = Reel(material.source, specs, reader.blocks())
        entry = _entry(name, material, segments if "text" in self.modalities else ())
        label = f"{name}{f', face {track.face.name}' if track.face.name else ''}: predicting"
        ways = contributions and len(self.modalities) > 1
        outputs = self._windowed(reel, entry, ways, label)
        observed = {m: np.concatenate(masks) for m, masks in reel.observed.items()}
        nothing = ~np.any(list(observed.values()), axis=0)
        va = np.where(nothing[:, None], np.float32(np.nan), outputs[:, 0])
        return VideoPrediction(
            name=name,
            source=material.source,
            track=track.face.name,
            frame=np.arange(n),
            time_s=np.asarray(material.times_s, np.float64),
            va=va,
            smoothed=None,
            face_found=track.face.found,
            face_confidence=track.face.confidence,
            boxes=track.face.boxes,
            observed=observed,
            words=_words(segments),
            contributions=_contributions(outputs, observed) if ways else None,
            label=self.model.label,
            notes=(*material.notes, *reader.notes, *self._absent(material, words, observed)),
            facts={},
        )

    def _absent(
        self,
        material: Material,
        words: Path | None,
        observed: Mapping[str, Bool[np.ndarray, "n"]],
    ) -> list[str]:
        """What the model would have taken and was not there, in sentences."""
        pictures = material.info is not None or material.crops is not None
        hints = {
            "visual": "no face was found" if pictures else "no pictures",
            "audio": "no sound" if material.audio is None else "the sound gave no features",
            "text": "no words (--transcript FILE or --asr DIR give some)"
            if words is None
            else "the transcript has no words",
        }
        told = []
        for name, mask in observed.items():
            if not mask.any():
                told.append(f"{hints.get(name, name)}: predicted without {name}")
            elif name == "visual" and not mask.all():
                told.append(f"a face in {mask.sum():,} of {len(mask):,} frames")
        nothing = int((~np.any(list(observed.values()), axis=0)).sum())
        if nothing:
            show = "frame shows" if nothing == 1 else "frames show"
            told.append(f"{nothing:,} {show} nothing that the model takes: no value there")
        return told


def load(
    path: str | os.PathLike[str],
    *,
    which: str = "best",
    encoders: Sequence[str] = (),
    workers: int | None = None,
) -> Predictor:
    """A predictor of the model in a workdir or a bundle.

    Args:
        path: the workdir of a run or of `maven-jax convert`, or what `maven-jax export` wrote.
        which: of a workdir: `best` (by validation ccc), `latest` or a step.
        encoders: where this machine has the encoders' weights, as
            `--encoders.visual.source=FOLDER`; other weights than those of training are refused.
        workers: threads that decode crops; None for one per core.

    Raises:
        UserError: no model there, encoders that are not here, or other ones than in training.
    """
    model = open_model(Path(path), which)
    if model.label:
        say(f"MEANINGLESS NUMBERS: {model.label}")
    known = model.trained_on
    missing = [m for m in known.modalities if m not in known.encoders]
    if missing:
        raise UserError(
            f"{path}: the features of {', '.join(missing)} were made elsewhere and imported; "
            "only `maven-jax evaluate` on a store of such features can predict"
        )
    sections = ConfigDict(recipes.from_json(known.encoders).to_dict())
    recipes.override(sections, encoders, prefix="encoders")
    opened = open_encoders(sections, tuple(known.modalities), workers or os.cpu_count() or 1)
    _check_encoders(opened.specs(), known.modalities, Path(path))
    return Predictor(model, opened)


def _check_encoders(
    here: Mapping[str, ModalitySpec], trained: Mapping[str, ModalitySpec], path: Path
) -> None:
    """Raises UserError unless these encoders make the features that the model was trained on."""
    for name, spec in trained.items():
        for key in ("dim", *_IDENTITY):
            old, new = (
                s.dim if key == "dim" else json.loads(json.dumps(s.spec.get(key)))
                for s in (spec, here[name])
            )
            if old != new:
                raise UserError(
                    f"{path}: the encoder of {name} is not the one of training: {key} is "
                    f"{str(new)[:60]}, not {str(old)[:60]}; --encoders.{name}.source=FOLDER says "
                    "where the right one is"
                )


def _nobody(num_frames: int) -> ChosenFace:
    return ChosenFace(
        "",
        np.full(num_frames, -1),
        np.full((num_frames, 4), np.nan, np.float32),
        np.zeros(num_frames, np.float32),
    )


def _given_crops(folder: Path, num_frames: int) -> ChosenFace:
    """Faces that were cut elsewhere: where they were in the picture is not known."""
    face = _nobody(num_frames)
    existing = Crops(folder).existing
    existing = existing[existing < num_frames]
    face.track[existing], face.confidence[existing] = 0, 1.0
    return face


def _entry(name: str, material: Material, segments: Sequence[Segment]) -> VideoEntry:
    """The video as windows are cut from it."""
    ids = segment_ids(
        np.array([s.start_s for s in segments]),
        np.array([s.end_s for s in segments]),
        material.times_s,
    )
    borders = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    return VideoEntry(
        video=name,
        split="test",
        num_frames=len(ids),
        first_record=0,
        fps=material.fps,
        duration_s=material.duration_s,
        num_annotated=0,
        stem=material.source.stem,
        observed={},
        nonfinite={},
        segments=tuple(itertools.pairwise(borders)),
    )


def _words(segments: Sequence[Segment]) -> tuple[Word, ...]:
    """The words of a transcript with their times, spread over the segment where it has none."""
    words = []
    for segment in segments:
        texts, spans = timed_words(segment)
        words += [Word(float(a), float(b), text) for text, (a, b) in zip(texts, spans)]
    return tuple(words)


def _contributions(
    outputs: Float32[np.ndarray, "n k 2"], observed: Mapping[str, Bool[np.ndarray, "n"]]
) -> dict[str, Float32[np.ndarray, "n 2"]]:
    """Modality -> what it adds; NaN where nothing else was observed."""
    found = {}
    for i, name in enumerate(observed, 1):
        others = np.any([mask for m, mask in observed.items() if m != name], axis=0)
        found[name] = np.where(others[:, None], outputs[:, 0] - outputs[:, i], np.float32(np.nan))
    return found


def _finished(
    found: VideoPrediction, material: Material, widths: tuple[int, int] | None, seconds: float
) -> VideoPrediction:
    """With smoothed tracks and the facts of the run."""
    facts = {
        "duration_s": material.duration_s,
        "fps": material.fps,
        "seconds": seconds,
        # Seconds of video per second of work: above 1 is faster than it plays.
        "real_time_factor": material.duration_s / max(seconds, 1e-9),
        "peak_memory_mib": peak_memory_mib(),
    }
    smoothed = None if widths is None else _smoothed(found.va, widths)
    return dataclasses.replace(found, smoothed=smoothed, facts=facts)


def _smoothed(
    va: Float32[np.ndarray, "n 2"], widths: tuple[int, int]
) -> Float32[np.ndarray, "n 2"]:
    """The box filter's mean over those frames that have a value; NaN stays where it is."""
    known = ~np.isnan(va)
    if known.all():
        return box_filter(va, widths)
    weight = box_filter(known.astype(np.float32), widths)
    mean = box_filter(np.where(known, va, np.float32(0)), widths) / np.maximum(weight, 1e-9)
    return np.where(known, mean, np.float32(np.nan))
