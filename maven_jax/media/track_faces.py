"""From faces in single pictures to the tracks of people from picture to picture."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from maven_jax.errors import UserError
from maven_jax.media.find_faces import Face, overlap

# Share of their union by which the boxes of one person in neighbouring pictures overlap at least.
_LEAST_OVERLAP = 0.3
# A face that is lost for longer than this comes back as another one; so many times the usual
# interval between pictures, if that is longer.
_LOST_S, _LOST_INTERVALS = 1.0, 2.5
# Shorter tracks are mistakes of the detector; in short clips those of less than half of it.
_LEAST_FRAMES, _LEAST_S = 3, 0.3
# So are tracks that are shorter than this and never clear.
_DOUBTFUL_S = 1.0
# Two pictures that differ by more grey levels than this on average have a cut between them.
_CUT_LEVELS = 30.0
_THUMBNAIL = (32, 18)

CHOICES = ("largest", "longest", "left", "right", "all")


@dataclass
class FaceTrack:
    """One face through a video, in compact arrays: a video may last for hours.

    Attributes:
        key: number of the track in the order of appearance, from 0.
        first_s, last_s: time of its first and of its latest frame.
        frames: those in which the face was found, increasing.
        boxes: x, y, width, height in each of these frames, flat.
        confidences: of the detector in each of these frames.
    """

    key: int
    first_s: float
    last_s: float
    frames: array = field(default_factory=lambda: array("q"))
    boxes: array = field(default_factory=lambda: array("f"))
    confidences: array = field(default_factory=lambda: array("f"))

    @property
    def area(self) -> float:
        """The sum of the boxes' areas in pixels: large for people who are near and often seen."""
        boxes = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)
        return float((boxes[:, 2].astype(np.float64) * boxes[:, 3]).sum())

    @property
    def middle(self) -> float:
        """How far right the face is, in pixels: the mean over its frames."""
        boxes = np.frombuffer(self.boxes, np.float32).reshape(-1, 4)
        return float((boxes[:, 0] + boxes[:, 2] / 2).mean())

    def add(self, frame: int, time_s: float, face: Face) -> None:
        self.frames.append(frame)
        self.boxes.extend(face.box)
        self.confidences.append(face.confidence)
        self.last_s = time_s


class Tracker:
    """Joins the faces of consecutive pictures by the overlap of their boxes.

    Args:
        times_s: of all pictures of the video.
    """

    def __init__(self, times_s: Sequence[float | int] | np.ndarray = ()) -> None:
        self._times = np.asarray(times_s, np.float64)
        gaps = np.diff(self._times)
        self._interval_s = float(np.median(gaps)) if len(gaps) else 0.0
        self._lost_s = max(_LOST_S, _LOST_INTERVALS * self._interval_s)
        self.tracks: list[FaceTrack] = []
        self._running: list[FaceTrack] = []
        self._thumbnail: np.ndarray | None = None

    def update(self, frame: int, time_s: float, faces: Sequence[Face]) -> list[FaceTrack]:
        """The tracks of the faces in the next picture, in the order of `faces`."""
        self._running = [t for t in self._running if time_s - t.last_s <= self._lost_s]
        pairs = sorted(
            (
                (overlap(face.box, tuple(track.boxes[-4:])), i, track)
                for i, face in enumerate(faces)
                for track in self._running
            ),
            key=lambda pair: (-pair[0], pair[1], pair[2].key),
        )
        matches: dict[int, FaceTrack] = {}
        for common, i, track in pairs:
            if common < _LEAST_OVERLAP:
                break
            if i not in matches and all(track is not other for other in matches.values()):
                matches[i] = track
        for i, face in enumerate(faces):
            if i not in matches:
                matches[i] = FaceTrack(len(self.tracks), time_s, time_s)
                self.tracks.append(matches[i])
                self._running.append(matches[i])
            matches[i].add(frame, time_s, face)
        return [matches[i] for i in range(len(faces))]

    def sees_cut(self, image: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Whether there is a cut before this picture; if so, all running tracks end."""
        small = cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        thumbnail = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        before, self._thumbnail = self._thumbnail, thumbnail
        is_cut = before is not None and float(np.abs(thumbnail - before).mean()) > _CUT_LEVELS
        if is_cut:
            self._running = []
        return is_cut

    def people(self, clear: float | int = 0.0) -> list[FaceTrack]:
        """The tracks that are no mistakes, in the order of appearance; their IDs count from 1.

        Args:
            clear: confidence of a face that is hardly a mistake. A brief track without any such
                face is none.
        """
        n = len(self._times)
        frames = min(_LEAST_FRAMES, max(n // 2, 1)) if n else _LEAST_FRAMES
        whole_s = float(self._times[-1] - self._times[0]) if n else 2 * _LEAST_S
        least_s = min(_LEAST_S, whole_s / 2)
        people = []
        for t in self.tracks:
            length_s = t.last_s - t.first_s
            is_clear = length_s >= _DOUBTFUL_S or max(t.confidences) >= clear
            if len(t.frames) >= frames and length_s >= least_s and is_clear:
                people.append(t)
        return people


@dataclass(frozen=True)
class ChosenFace:
    """A face to predict; in each frame it comes from one track or from none.

    Attributes:
        name: "" or the ID, when several are chosen.
        track: (n,) key of the track, -1 in frames without the face.
        boxes: (n, 4) x, y, width, height in pixels, NaN in frames without the face.
        confidence: (n,) of the detector, 0 in frames without the face.
    """

    name: str
    track: Int[np.ndarray, "n"]
    boxes: Float32[np.ndarray, "n 4"]
    confidence: Float32[np.ndarray, "n"]

    @property
    def found(self) -> Bool[np.ndarray, "n"]:
        """(n,) which frames show the face."""
        return self.track >= 0


def check_choice(choice: str) -> None:
    """Raises UserError if `--face` cannot mean anything, whoever is in the video."""
    if choice not in CHOICES and not (choice.isascii() and choice.isdigit() and int(choice) > 0):
        raise UserError(f"--face {choice}: expected {', '.join(CHOICES)} or a face's number from 1")


def choose(people: Sequence[FaceTrack], choice: str, num_frames: int) -> list[ChosenFace]:
    """The faces that `--face` means; one that is in no frame if nobody was found.

    Args:
        people: the tracks of a video; their IDs are their places in it, from 1.
        choice: `longest` takes the track with the most frames. `largest` takes in every frame the
            track whose boxes cover most over the whole video: it stays with one of two people and
            passes on to another at a cut. `left` and `right`, as the viewer sees it, take in every
            frame the outermost of the tracks that last over it. An ID takes that track, `all`
            every track by itself.
        num_frames: of the video.

    Raises:
        UserError: no such face.
    """
    check_choice(choice)
    if choice.isdigit():
        if int(choice) > len(people):
            numbers = f"there are 1 to {len(people)}" if people else "none was found"
            raise UserError(f"--face {choice}: no such face; {numbers}")
        return [_chosen("", [people[int(choice) - 1]], num_frames)]
    if choice == "all" and people:
        return [_chosen(str(i), [track], num_frames) for i, track in enumerate(people, 1)]
    if choice == "longest":
        return [_chosen("", sorted(people, key=lambda t: -len(t.frames))[:1], num_frames)]
    if choice in ("left", "right"):
        outwards = sorted(people, key=lambda t: t.middle, reverse=choice == "left")
        return [_chosen("", outwards, num_frames, alone=True)]
    # Larger faces overwrite smaller ones.
    return [_chosen("", sorted(people, key=lambda t: t.area), num_frames)]


def _chosen(
    name: str, tracks: Sequence[FaceTrack], num_frames: int, alone: bool = False
) -> ChosenFace:
    """The last of the tracks wherever it was found; `alone`: from its first frame to its last."""
    keys = np.full(num_frames, -1)
    boxes = np.full((num_frames, 4), np.nan, np.float32)
    confidence = np.zeros(num_frames, np.float32)
    for track in tracks:
        frames = np.frombuffer(track.frames, np.int64)
        if alone:
            lasts = slice(frames[0], frames[-1] + 1)
            keys[lasts], boxes[lasts], confidence[lasts] = -1, np.nan, 0.0
        keys[frames] = track.key
        boxes[frames] = np.frombuffer(track.boxes, np.float32).reshape(-1, 4)
        confidence[frames] = np.frombuffer(track.confidences, np.float32)
    return ChosenFace(name, keys, boxes, confidence)
