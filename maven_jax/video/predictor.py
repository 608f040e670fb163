"""A trained model on a user's own media: decode, crop, encode, predict window by window, blend.

Features come from the code that makes those of training (`features.reader.RecordingReader`) and
are cut into the same windows, so a video scores here as it would from a feature store. Everything
streams: face crops go through a folder on disk, features are dropped once their windows are done.
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
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
from jaxtyping import Bool, Float32
from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.convert import hub
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Calibration, box_filter
from maven_jax.features.device import Clock, peak_memory_mib
from maven_jax.features.model_files import RANDOM
from maven_jax.features.reader import Encoders, RecordingReader, open_encoders
from maven_jax.features.text import timed_words
from maven_jax.files import local_path
from maven_jax.media.align import segment_ids
from maven_jax.media.face_search import FaceSearch
from maven_jax.media.problems import REPAIRED
from maven_jax.media.recording import Recording, open_recording, part_of
from maven_jax.media.sound import open_audio
from maven_jax.media.speech_to_text import transcribe
from maven_jax.media.transcripts import Segment, Transcript, Word, parse_transcript
from maven_jax.progress import say
from maven_jax.runs.trained_model import open_model
from maven_jax.store.schema import ModalitySpec, VideoEntry
from maven_jax.video.arguments import as_face, as_fps, as_path, as_smooth, as_span, as_workers
from maven_jax.video.extra_curves import curves_of
from maven_jax.video.face_embedding import same_face as same_as
from maven_jax.video.faces import FaceCrops, open_faces
from maven_jax.video.frame_model import FrameModel
from maven_jax.video.live_frames import LiveFrames
from maven_jax.video.prediction import VideoPrediction
from maven_jax.video.shared_features import SharedFeatures
from maven_jax.video.window_mean import WindowedModel

# What makes the features of two encoders the same; their versions and places do not.
_IDENTITY = ("encoder", "sha256", "feature", "dtype", "preprocessing")


class VideoPredictor:
    """Predicts media with one model; made by `load` and `affect.load_affect`.

    Attributes:
        model: a trained model, or published ones.
        encoders: those that its features come from.
    """

    def __init__(self, model: FrameModel, encoders: Encoders):
        self.model: Any = model.model if isinstance(model, WindowedModel) else model
        self.encoders, self._frames = encoders, model

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model takes, in its order."""
        return self._frames.modalities

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
        face: str | SupportsIndex = "largest",
        face_model: str | os.PathLike[str] | None = None,
        face_search: FaceSearch | None = None,
        same_face: SupportsFloat | None = None,
        crops: str | os.PathLike[str] | None = None,
        fps: SupportsFloat | None = None,
        smooth: bool | SupportsIndex | Sequence[SupportsIndex] | None = None,
        calibrated: bool = False,
        contributions: bool = False,
        start_s: SupportsFloat | None = None,
        end_s: SupportsFloat | None = None,
    ) -> list[VideoPrediction]:
        """Valence and arousal of every frame, for each of the chosen faces.

        Args:
            media: a video, a sound file or a folder of face crops.
            transcript: what is said, see `media.transcripts`.
            asr: folder of a Whisper model that listens, instead of a transcript.
            face: `largest`, `longest`, `left`, `right`, `all`, or the number of a face.
            face_model: "yunet", "mtcnn", "haar" or YuNet's ONNX file; None for the first of them
                that is on this machine.
            face_search: that, and how faces are looked for.
            same_face: cosine of the mean features of two tracks from which on they are one person
                before and behind a cut, by the model's encoder of faces; None for not asking.
            crops: a folder of the video's face crops, cut elsewhere.
            fps: frames per second of a folder of crops, or of sound alone.
            smooth: widths in frames of the box filters of valence and arousal, or one for both;
                None for those that belong to the model, if any, False for none.
            calibrated: also what `maven-jax tune` chose for the model.
            contributions: predict once more without each modality.
            start_s: predict the frames from this time on only, as if the file had been cut there.
            end_s: and up to this time.

        Raises:
            UserError: a file that cannot be used, nothing that the model takes, no such face, or an
                argument that is none of these.
        """
        began, path = time.monotonic(), as_path(media, "media")
        if path is None:
            raise UserError("media=None: expected a path")
        choice = as_face(face)
        given = None if smooth is None or smooth is False else as_smooth(smooth)
        calibration = self._calibration() if calibrated else None
        search = face_search or FaceSearch(as_path(face_model, "face_model"))
        same = None if same_face is None else same_as(float(same_face), self.encoders)
        span_s = as_span(start_s, end_s)
        recording = open_recording(path, crops=as_path(crops, "crops"), fps=as_fps(fps))
        recording = part_of(recording, *span_s)
        with tempfile.TemporaryDirectory(prefix="maven_jax-") as scratch:
            words = self._transcript(
                recording, as_path(transcript, "transcript"), as_path(asr, "asr"), Path(scratch)
            )
            spoken = Transcript(()) if words is None else parse_transcript(words)
            notes = [fix.message for fix in spoken.fixes if fix.severity == REPAIRED]
            recording = dataclasses.replace(
                recording, transcript=words, notes=(*recording.notes, *notes)
            )
            self._check_usable(recording)
            needed = search if "visual" in self.modalities else None
            faces = open_faces(recording, choice, needed, Path(scratch), self._frames, same)
            shared = None
            if len(faces) > 1 and self.modalities != ("visual",):
                shared = SharedFeatures(recording, self.encoders, Path(scratch))
            widths = self._frames.smooth_frames(recording.fps) if smooth is None else given
            shared_s = (time.monotonic() - began) / len(faces)
            predictions = []
            for face_crops in faces:
                began = time.monotonic()
                raw = self._predict_face(
                    recording, face_crops, spoken.segments, contributions, shared
                )
                seconds = shared_s + time.monotonic() - began
                predictions.append(_finished(raw, recording, widths, calibration, seconds))
            return predictions

    def _calibration(self) -> Calibration:
        tuned = self._frames.tuned()
        if tuned is None:
            raise UserError(
                f"{self._frames.source}: nobody chose a calibration; run `maven-jax tune`, or do "
                "without"
            )
        return tuned

    def _transcript(
        self,
        recording: Recording,
        transcript: Path | None,
        asr: Path | None,
        scratch: Path,
    ) -> Path | None:
        if transcript is not None and asr is not None:
            raise UserError("give a transcript or a speech recogniser, not both")
        if transcript is not None:
            return transcript
        if asr is None:
            return None
        if recording.audio is None:
            say(f"{recording.source.name}: no sound, so nothing for the speech recogniser")
            return None
        segments = transcribe(open_audio(recording.audio, recording.span_s), asr)
        path = scratch / "transcript.json"
        path.write_text(json.dumps([dataclasses.asdict(s) for s in segments]))
        return path

    def _check_usable(self, recording: Recording) -> None:
        """Raises UserError if the recording has no modality that the model takes."""
        present = {
            "visual": recording.has_pictures,
            "audio": recording.audio is not None,
            "text": recording.transcript is not None,
        }
        if not any(present.get(name) for name in self.modalities):
            has = ", ".join(name for name in present if present[name]) or "nothing"
            hint = "; `maven-jax weights` lists networks for the rest"
            hint = hint if self._frames.published else ""
            raise UserError(
                f"{recording.source}: has {has}, and the model of {self._frames.source} takes "
                f"{', '.join(self.modalities)}{hint}"
            )

    def _predict_face(
        self,
        recording: Recording,
        face_crops: FaceCrops,
        segments: Sequence[Segment],
        contributions: bool,
        shared: SharedFeatures | None,
    ) -> VideoPrediction:
        """One face; `_finished` adds what depends on the whole of it: smooth values and facts."""
        name, face = recording.source.name, face_crops.face
        cropped = dataclasses.replace(recording, crops=face_crops.crops)
        encoders = self.encoders
        if shared is not None:
            encoders = dataclasses.replace(encoders, audio=None, text=None)
        reader = RecordingReader(cropped, encoders, Clock())
        blocks = reader.blocks() if shared is None else shared.joined(reader.blocks())
        specs = {m: self.encoders.specs()[m] for m in self.modalities}
        frames = LiveFrames(recording.source, specs, blocks)
        entry = _entry(recording, segments if "text" in self.modalities else ())
        label = f"{name}{f', face {face.name}' if face.name else ''}: predicting"
        without_each = contributions and len(self.modalities) > 1
        outputs = self._frames.outputs(frames, entry, without_each, label)
        observed = {m: np.concatenate(masks) for m, masks in frames.observed.items()}
        # A crop that cannot be read shows no face.
        shown = face.found & observed.get("visual", face.found)
        unobserved = ~np.any(list(observed.values()), axis=0)
        va = np.where(unobserved[:, None], np.float32(np.nan), outputs[:, 0, :2])
        return VideoPrediction(
            name=name,
            source=recording.source,
            track=face.name,
            frame=np.arange(recording.num_frames) + recording.first_frame,
            time_s=np.asarray(recording.times_s, np.float64),
            va=va,
            smoothed=None,
            face_found=shown,
            face_confidence=np.where(shown, face.confidence, np.float32(0)),
            boxes=np.where(shown[:, None], face.boxes, np.float32(np.nan)),
            observed=observed,
            words=_words(segments, recording.span_s),
            contributions=_contributions(outputs[..., :2], observed) if without_each else None,
            label=self._frames.label,
            published=self._frames.published,
            notes=(
                *recording.notes,
                *face_crops.notes,
                *(() if shared is None else shared.notes),
                *reader.notes,
                *_absent(recording, observed),
            ),
            facts={},
            extra=curves_of(outputs[:, 0, 2:], self._frames.extra_targets, unobserved),
        )


def load(
    path: str | os.PathLike[str],
    *,
    which: str = "best",
    encoders: Sequence[str] = (),
    workers: SupportsIndex | None = None,
) -> VideoPredictor:
    """A predictor of the model in a workdir or a bundle.

    Args:
        path: the workdir of a run or of `maven-jax convert`, or what `maven-jax export` wrote.
        which: of a workdir: `best` (by validation ccc), `latest` or a step.
        encoders: where this machine has the encoders' weights, as
            `--encoders.visual.source=FOLDER`; other weights than those of training are refused.
            Only a source named here is ever downloaded.
        workers: threads that decode crops; None for one per core.

    Raises:
        UserError: no model in `path`, encoders that are missing or not those of training, or
            no number of threads.
    """
    threads = as_workers(workers, os.cpu_count() or 1)
    model = open_model(local_path(path), which)
    if model.label:
        say(f"MEANINGLESS NUMBERS: {model.label}")
    trained_on = model.trained_on
    missing = [m for m in trained_on.modalities if m not in trained_on.encoders]
    if missing:
        raise UserError(
            f"{path}: the features of {', '.join(missing)} were made elsewhere and imported; "
            "only `maven-jax evaluate` on a store of such features can predict"
        )
    sections: Any = ConfigDict(recipes.from_json(trained_on.encoders).to_dict())
    named = recipes.override(sections, encoders, prefix="encoders")
    for name, section in sections.items():
        if "source" in section and not any(w.startswith(f"{name}.source=") for w in named):
            section.source = _source_here(section.source, f"{path}: its encoder of {name}", name)
    opened = open_encoders(sections, tuple(trained_on.modalities), threads)
    _check_encoders(opened.specs(), trained_on.modalities, Path(path))
    return VideoPredictor(WindowedModel(model), opened)


def _source_here(source: Any, encoder: str, modality: str) -> str:
    """The source of an encoder that the user did not name: nothing, or what is on this machine."""
    if not isinstance(source, str):
        raise UserError(f"{encoder} has the source {source!r}; expected a folder")
    if source == RANDOM:
        return source
    return hub.find_here(source, encoder, f"--encoders.{modality}.source")


def _check_encoders(
    opened: Mapping[str, ModalitySpec], trained: Mapping[str, ModalitySpec], path: Path
) -> None:
    """Raises UserError unless these encoders make the features that the model was trained on."""
    for name, spec in trained.items():
        for key in ("dim", *_IDENTITY):
            old, new = (
                s.dim if key == "dim" else json.loads(json.dumps(s.spec.get(key)))
                for s in (spec, opened[name])
            )
            if old != new:
                raise UserError(
                    f"{path}: the encoder of {name} is not the one of training: {key} is "
                    f"{str(new)[:60]}, not {str(old)[:60]}; name the right one by "
                    f"--encoders.{name}.source=FOLDER"
                )


def _entry(recording: Recording, segments: Sequence[Segment]) -> VideoEntry:
    """The recording as a store would list it; windows are cut from that."""
    ids = segment_ids(
        np.array([s.start_s for s in segments]),
        np.array([s.end_s for s in segments]),
        recording.times_s,
    )
    borders = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    return VideoEntry(
        video=recording.source.name,
        split="test",
        num_frames=len(ids),
        first_record=0,
        fps=recording.fps,
        duration_s=recording.duration_s,
        num_annotated=0,
        stem=recording.source.stem,
        observed={},
        nonfinite={},
        segments=tuple(itertools.pairwise(borders)),
    )


def _absent(recording: Recording, observed: Mapping[str, Bool[np.ndarray, "n"]]) -> list[str]:
    """What the model takes and the recording does not show, in sentences."""
    hints = {
        "visual": "no pictures"
        if not recording.has_pictures
        else ("no face was found" if recording.crops is None else "no crop can be used"),
        "audio": "no sound" if recording.audio is None else "the sound gave no features",
        "text": "no words (--transcript FILE or --asr DIR give some)"
        if recording.transcript is None
        else "no words of the transcript lie within the recording",
    }
    notes = []
    for name, mask in observed.items():
        if not mask.any():
            notes.append(f"{hints.get(name, name)}: predicted without {name}")
        elif name == "visual" and not mask.all():
            notes.append(f"a face in {mask.sum():,} of {len(mask):,} frames")
    blank = int((~np.any(list(observed.values()), axis=0)).sum())
    if blank:
        show = "frame shows" if blank == 1 else "frames show"
        notes.append(f"{blank:,} {show} nothing that the model takes: no value there")
    return notes


def _words(segments: Sequence[Segment], span_s: tuple[float, float] | None) -> tuple[Word, ...]:
    """The words of a transcript with their times, spread over the segment where it has none.

    Of a part, those that are heard in it.
    """
    words = []
    for segment in segments:
        texts, spans = timed_words(segment)
        words += [Word(float(a), float(b), text) for text, (a, b) in zip(texts, spans)]
    if span_s is not None:
        words = [w for w in words if w.end_s > span_s[0] and w.start_s < span_s[1]]
    return tuple(words)


def _contributions(
    outputs: Float32[np.ndarray, "n k 2"], observed: Mapping[str, Bool[np.ndarray, "n"]]
) -> dict[str, Float32[np.ndarray, "n 2"]]:
    """Modality -> what it adds; NaN where it was missing, and where it was the only one."""
    contributions = {}
    for i, name in enumerate(observed, 1):
        others = np.any([mask for m, mask in observed.items() if m != name], axis=0)
        compared = (others & observed[name])[:, None]
        contributions[name] = np.where(compared, outputs[:, 0] - outputs[:, i], np.float32(np.nan))
    return contributions


def _finished(
    raw: VideoPrediction,
    recording: Recording,
    widths: tuple[int, int] | None,
    calibration: Calibration | None,
    seconds: float,
) -> VideoPrediction:
    """With the smoothed and calibrated values and the facts of the run."""
    facts = {
        "duration_s": recording.duration_s,
        "fps": recording.fps,
        "seconds": seconds,
        # Seconds of video per second of work: above 1 is faster than it plays.
        "real_time_factor": recording.duration_s / max(seconds, 1e-9),
        "peak_memory_mib": peak_memory_mib(),
    }
    smoothed = None if widths is None else _smoothed(raw.va, widths)
    if calibration is not None:
        calibrated = calibration(raw.va, recording.fps)
        raw = dataclasses.replace(raw, calibrated=calibrated, calibration=calibration.to_json())
    return dataclasses.replace(raw, smoothed=smoothed, facts=facts)


def _smoothed(
    va: Float32[np.ndarray, "n 2"], widths: tuple[int, int]
) -> Float32[np.ndarray, "n 2"]:
    """The box filter's mean over the frames that have a value; NaN stays where it is."""
    has_value = ~np.isnan(va)
    if has_value.all():
        return box_filter(va, widths)
    weight = box_filter(has_value.astype(np.float32), widths)
    mean = box_filter(np.where(has_value, va, np.float32(0)), widths) / np.maximum(weight, 1e-9)
    return np.where(has_value, mean, np.float32(np.nan))
