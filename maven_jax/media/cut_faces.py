"""From a video to folders of aligned face crops, in the form in which Aff-Wild2 has them.

Videos go through here when a corpus is made of them and when a trained model predicts them: a model
sees in use what it saw in training, down to the bytes of a JPEG.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from maven_jax.media.crops import crop_name
from maven_jax.media.find_faces import Detector, Face, cut
from maven_jax.media.follow_faces import Following
from maven_jax.media.frame_times import MediaInfo
from maven_jax.media.pictures import pictures
from maven_jax.media.same_face import SameFace, join_over_cuts
from maven_jax.media.track_faces import ChosenFace, Tracker, check_choice, choose
from maven_jax.progress import say

JPEG_QUALITY = 95
# While one face is followed, new ones are looked for in every fifth picture only: they may come in
# up to four pictures late.
_SEARCH_EVERY = 5


def cut_faces(
    path: Path,
    info: MediaInfo,
    folder: Path,
    *,
    detector: Detector,
    choice: str,
    most: int = 8,
    every: int = 1,
    margin: float | int | None = None,
    same: SameFace | None = None,
    advance: Callable[[int], None] = lambda frames: None,
    note: Callable[[str], None] = say,
) -> list[tuple[ChosenFace, Path]]:
    """Finds, follows and crops the faces of a video; holds one picture at a time.

    Args:
        path: the video file.
        info: of the file, by `frame_times.probe`.
        folder: where crops go; other files in it stay as they are.
        detector: finds the faces of a picture.
        choice: which faces, see `track_faces.choose`.
        most: of a crowd, only the largest faces of a picture.
        every: a picture of so many is searched; in those between, the faces of the picture before
            are followed.
        margin: None for aligned crops, or what they show around the box (`find_faces.framing`).
        same: joins tracks of one person over cuts; None for not.
        advance: called with the number of frames done since its last call.
        note: called with a sentence about pictures that are damaged, and about `same`.

    Returns:
        The chosen faces, each with its folder of crops (`00001.jpg` is the first frame).

    Raises:
        UserError: no such face.
    """
    check_choice(choice)
    tracker, done, faces, cuts = Tracker(info.times_s), 0, list[Face](), list[int]()
    following = Following()
    intact = np.zeros(len(info.times_s), bool)
    for number, image in pictures(path, info):
        intact[number] = True
        is_cut = tracker.sees_cut(image)
        cuts += [number] * is_cut
        followed = None if every == 1 else following.next(image, () if is_cut else faces)
        if followed is None or is_cut or number % every == 0:
            everywhere = is_cut or number % _SEARCH_EVERY == 0 or every > 1
            faces = detector(image, faces, everywhere)[:most]
        else:
            faces = followed
        tracks = tracker.update(number, float(info.times_s[number]), faces)
        for face, track in zip(faces, tracks):
            track_folder = folder / f"track-{track.key}"
            track_folder.mkdir(parents=True, exist_ok=True)
            bgr = cv2.cvtColor(cut(image, face, margin), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (track_folder / crop_name(number)).write_bytes(data.tobytes())
        advance(number + 1 - done)
        done = number + 1
    advance(len(info.times_s) - done)
    if not intact.all():
        count, first_s = int((~intact).sum()), float(info.times_s[intact.argmin()])
        note(
            f"{path.name}: {count:,} of {len(intact):,} pictures are damaged (first at "
            f"{first_s:.2f} s): no face is looked for in them"
        )
    people = tracker.people(getattr(detector, "clear", 0.0))
    if same is not None:
        people = join_over_cuts(people, cuts, same, folder, note)
    chosen = choose(people, choice, len(info.times_s))
    return [(face, _gather(face, folder, i)) for i, face in enumerate(chosen, 1)]


def _gather(face: ChosenFace, folder: Path, number: int) -> Path:
    """Moves the crops of a chosen face into one folder."""
    face_folder = folder / f"face-{number}"
    face_folder.mkdir(parents=True, exist_ok=True)
    for frame in face.found.nonzero()[0]:
        name = crop_name(int(frame))
        os.replace(folder / f"track-{face.track[frame]}" / name, face_folder / name)
    return face_folder
