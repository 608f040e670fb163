"""The faces of a recording that are to be predicted, each with its crops."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from maven_jax.convert.face_detectors import open_detector
from maven_jax.media.crops import Crops
from maven_jax.media.cut_faces import cut_faces
from maven_jax.media.face_search import FaceSearch
from maven_jax.media.recording import Recording
from maven_jax.media.same_face import SameFace
from maven_jax.media.track_faces import ChosenFace
from maven_jax.progress import meter
from maven_jax.video.frame_model import FrameModel


@dataclasses.dataclass(frozen=True)
class FaceCrops:
    """A face to predict, the folder of its crops, and what was odd about its pictures.

    There is no folder where there are no pictures.
    """

    face: ChosenFace
    crops: Path | None
    notes: tuple[str, ...] = ()


def open_faces(
    recording: Recording,
    choice: str,
    search: FaceSearch | None,
    scratch: Path,
    model: FrameModel,
    same: SameFace | None = None,
) -> list[FaceCrops]:
    """The faces to predict: those of given crops, or those chosen of the faces in the video.

    Args:
        recording: with crops or with a video stream, or with neither.
        choice: which faces, see `track_faces.choose`.
        search: how to look for faces in a video without crops; None for not at all.
        scratch: folder for the crops of faces that are found here.
        model: they are cut for.
        same: joins tracks of one person over cuts; None for not.

    Returns:
        At least one; the only one has no crops if nobody was looked for.

    Raises:
        UserError: no such face, or a face model that cannot be used.
    """
    n = recording.num_frames
    if recording.crops is not None:
        return [_given_crops(recording, recording.crops)]
    if recording.info is None or search is None:
        return [FaceCrops(_nobody(n), None)]
    detector = open_detector(search)
    notes = list[str]()
    if model.face_detectors and detector.name not in model.face_detectors:
        trained = " and ".join(model.face_detectors)
        notes.append(
            f"faces are found by {detector.name}, those of the training by {trained}: --face-model"
        )
    with meter(f"{recording.source.name}: finding faces", n, "frames") as m:
        faces = cut_faces(
            recording.source,
            recording.info,
            scratch,
            detector=detector,
            choice=choice,
            most=search.most,
            every=search.every,
            margin=model.face_margin,
            same=same,
            advance=m.advance,
            note=notes.append,
        )
    return [FaceCrops(face, crops, tuple(notes)) for face, crops in faces]


def _nobody(num_frames: int) -> ChosenFace:
    return ChosenFace(
        "",
        np.full(num_frames, -1),
        np.full((num_frames, 4), np.nan, np.float32),
        np.zeros(num_frames, np.float32),
    )


def _given_crops(recording: Recording, folder: Path) -> FaceCrops:
    """Faces that were cut elsewhere: where they were in the picture is not known."""
    num_frames, existing = recording.num_frames, Crops(folder, first=recording.first_crop).existing
    face = _nobody(num_frames)
    within = existing[existing < num_frames]
    face.track[within], face.confidence[within] = 0, 1.0
    unused = len(existing) - len(within)
    note = f"{unused:,} of {len(existing):,} crops lie behind the last frame: unused"
    return FaceCrops(face, folder, (note,) if unused and recording.span_s is None else ())
