"""From a video to folders of aligned face crops, in the form in which Aff-Wild2 has them.

Training corpora that were not cropped by others, and the videos that a trained model is to predict,
go through here: what a model sees in use is what it saw in training, down to the bytes of a JPEG.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2

from maven_jax.media.container import MediaInfo
from maven_jax.media.crops import crop_name
from maven_jax.media.find_faces import Detector, Face, cut
from maven_jax.media.pictures import pictures
from maven_jax.media.track_faces import ChosenFace, Tracker, choose

JPEG_QUALITY = 95
# Of a crowd, those in front.
_MOST_FACES = 8
# While there is a face, new ones are looked for in every so many pictures: they may come in by so
# many pictures later than they are there.
_SEARCH_EVERY = 5


def cut_faces(
    path: Path,
    info: MediaInfo,
    folder: Path,
    *,
    detector: Detector,
    choice: str,
    advance: Callable[[int], None] = lambda frames: None,
) -> list[tuple[ChosenFace, Path]]:
    """Finds, follows and crops the faces of a video; holds one picture at a time.

    Args:
        path: the video file.
        info: what `media.probe` found in it.
        folder: where crops go; others are not disturbed if it is not empty.
        detector: finds faces, in every picture anew.
        choice: which faces, see `track_faces.choose`.
        advance: is told how many more frames are done.

    Returns:
        The chosen faces, each with its folder of crops (`00001.jpg` is the first frame).

    Raises:
        UserError: no such face.
    """
    tracker, done, faces = Tracker(), 0, list[Face]()
    for number, image in pictures(path, info):
        everywhere = tracker.sees_cut(image) or number % _SEARCH_EVERY == 0
        faces = detector(image, faces, everywhere)[:_MOST_FACES]
        tracks = tracker.update(number, float(info.times_s[number]), faces)
        for face, track in zip(faces, tracks):
            place = folder / f"track-{track.key}"
            place.mkdir(parents=True, exist_ok=True)
            bgr = cv2.cvtColor(cut(image, face), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (place / crop_name(number)).write_bytes(data.tobytes())
        advance(number + 1 - done)
        done = number + 1
    advance(len(info.times_s) - done)
    chosen = choose(tracker.people(), choice, len(info.times_s))
    return [(face, _gather(face, folder, i)) for i, face in enumerate(chosen, 1)]


def _gather(face: ChosenFace, folder: Path, number: int) -> Path:
    """Moves the crops of a chosen face into one folder."""
    place = folder / f"face-{number}"
    place.mkdir(parents=True, exist_ok=True)
    for frame in face.found.nonzero()[0]:
        name = crop_name(int(frame))
        os.replace(folder / f"track-{face.track[frame]}" / name, place / name)
    return place
