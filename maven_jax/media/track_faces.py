"""From faces in single pictures to tracks of people: who is the same in the next one."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from maven_jax.errors import UserError
from maven_jax.media.find_faces import Face, overlap

# Two boxes of one person in neighbouring pictures overlap by more of their union than this.
_LEAST_OVERLAP = 0.3
# A face that is lost for longer comes back as another one.
_LOST_S = 1.0
# Tracks of fewer pictures, or of less time, are mistakes of the detector.
_LEAST_FRAMES, _LEAST_S = 3, 0.3
# Grey levels by which two pictures differ on average when the film is cut between them.
_CUT_LEVELS = 30.0
_THUMBNAIL = (32, 18)

CHOICES = ("largest", "longest", "all")


@dataclass
class Track:
    """One face through a video; numbers are kept in arrays, for hours of them.

    Attributes:
        key: number in the order of appearance, of all that the tracker began, from 0.
        frames: in which it was found, increasing.
        boxes: x, y, width, height of each, one after the other.
        confidences: of each.
    """

    key: int
    first_s: float
    last_s: float
    frames: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("f"))
    confidences: array = field(default_factory=lambda: array("f"))

    @property
    def area(self) -> float:
        """The sum of the boxes' areas, pixels: large for those who are near, and often there."""
        boxes = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)
        return float((boxes[:, 2].astype(np.float64) * boxes[:, 3]).sum())

    def add(self, frame: int, time_s: float, face: Face) -> None:
        self.frames.append(frame)
        self.boxes.extend(face.box)
        self.confidences.append(face.confidence)
        self.last_s = time_s


class Tracker:
    """Joins faces of pictures that follow each other by the overlap of their boxes."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._running: list[Track] = []
        self._thumbnail: np.ndarray | None = None

    def update(self, frame: int, time_s: float, faces: Sequence[Face]) -> list[Track]:
        """The track of each of the next picture's faces, in the order given."""
        self._running = [t for t in self._running if time_s - t.last_s <= _LOST_S]
        pairs = sorted(
            (
                (overlap(face.box, tuple(track.boxes[-4:])), i, track)
                for i, face in enumerate(faces)
                for track in self._running
            ),
            key=lambda pair: (-pair[0], pair[1], pair[2].key),
        )
        found: dict[int, Track] = {}
        for common, i, track in pairs:
            if common < _LEAST_OVERLAP:
                break
            if i not in found and all(track is not other for other in found.values()):
                found[i] = track
        for i, face in enumerate(faces):
            if i not in found:
                found[i] = Track(len(self.tracks), time_s, time_s)
                self.tracks.append(found[i])
                self._running.append(found[i])
            found[i].add(frame, time_s, face)
        return [found[i] for i in range(len(faces))]

    def sees_cut(self, image: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Whether the film is cut before this picture; if it is, no track goes on."""
        small = cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        thumbnail = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        is_cut = before is not None and float(np.abs(thumbnail - before).mean()) > _CUT_LEVELS
        if is_cut:
            self._running = []
        return is_cut

    def people(self) -> list[Track]:
        """The tracks that last, in the order of appearance: the first one's ID is 1, and so on."""
        return [
            t
            for t in self.tracks
            if len(t.frames) >= _LEAST_FRAMES and t.last_s - t.first_s >= _LEAST_S
        ]


@dataclass(frozen=True)
class ChosenFace:
    """The face that is to be predicted: of each frame, which track's it is.

    Attributes:
        name: "" or the ID, when several are chosen.
        track: (n,) key of the track, -1 where there is none.
        boxes: (n, 4) x, y, width, height in pixels, NaN where there is none.
        confidence: (n,) 0 where there is none.
    """

    name: str
    track: Int[np.ndarray, "n"]
    boxes: Float32[np.ndarray, "n 4"]
    confidence: Float32[np.ndarray, "n"]

    @property
    def found(self) -> Bool[np.ndarray, "n"]:
        """(n,) where there is a face."""
        return self.track >= 0


def choose(people: Sequence[Track], choice: str, num_frames: int) -> list[ChosenFace]:
    """The faces that `--face` means; one without any frame if nobody was found.

    Args:
        people: the tracks of a video; their IDs are their places, from 1.
        choice: `longest` takes the track with the most frames. `largest` takes in every frame,
            of those that are there, the track whose boxes cover most over the whole video: it
            keeps to one of two people, and passes on to another where the film is cut. An ID
            takes that track, `all` each by itself.
        num_frames: of the video.

    Raises:
        UserError: no such face.
    """
    if choice not in CHOICES and not (choice.isascii() and choice.isdigit()):
        raise UserError(f"--face {choice}: {', '.join(CHOICES)} or a face's number is wanted")
    if choice.isdigit():
        if not 1 <= int(choice) <= len(people):
            known = f"there are 1 to {len(people)}" if people else "none was found"
            raise UserError(f"--face {choice}: no such face; {known}")
        return [_chosen("", [people[int(choice) - 1]], num_frames)]
    if choice == "all" and people:
        return [_chosen(str(i), [track], num_frames) for i, track in enumerate(people, 1)]
    if choice == "longest":
        return [_chosen("", sorted(people, key=lambda t: -len(t.frames))[:1], num_frames)]
    # Those that count more overwrite those that count less.
    return [_chosen("", sorted(people, key=lambda t: t.area), num_frames)]


def _chosen(name: str, tracks: Sequence[Track], num_frames: int) -> ChosenFace:
    keys = np.full(num_frames, -1)
    boxes = np.full((num_frames, 4), np.nan, np.float32)
    confidence = np.zeros(num_frames, np.float32)
    for track in tracks:
        frames = np.frombuffer(track.frames, np.int64)
        keys[frames] = track.key
        boxes[frames] = np.frombuffer(track.boxes, np.float32).reshape(-1, 4)
        confidence[frames] = np.frombuffer(track.confidences, np.float32)
    return ChosenFace(name, keys, boxes, confidence)
