"""Faces of one picture in the next, by the motion of what is inside their boxes: no detector."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from maven_jax.media.find_faces import Face

# Points on a grid within a face's box, and how many of them have to move as one.
_GRID, _LEAST_POINTS = 6, 12
# Rows of the small grey pictures in which motion is seen.
_ROWS = 360
_WINDOW = (15, 15)


class Following:
    """Follows faces from picture to picture (Lucas and Kanade's optical flow, in pyramids)."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def next(self, image: UInt8[np.ndarray, "h w 3"], faces: Sequence[Face]) -> list[Face] | None:
        """Where the faces of the picture before are in this one; None if one of them is lost."""
        scale = min(_ROWS / len(image), 1.0)
        size = (max(round(image.shape[1] * scale), 1), max(round(len(image) * scale), 1))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        before, self._before = self._before, grey
        if before is None or before.shape != grey.shape:
            return None
        moved = [_moved(before, grey, face, scale) for face in faces]
        return None if any(face is None for face in moved) else [f for f in moved if f]


def _moved(before: np.ndarray, grey: np.ndarray, face: Face, scale: float | int) -> Face | None:
    x, y, w, h = face.box
    shares = (np.arange(_GRID) + 0.5) / _GRID
    grid = np.stack(np.meshgrid(x + shares * w, y + shares * h), -1).reshape(-1, 1, 2) * scale
    old = grid.astype(np.float32)
    new, seen, _ = cv2.calcOpticalFlowPyrLK(before, grey, old, None, winSize=_WINDOW)  # pyright: ignore
    if new is None or (seen == 1).sum() < _LEAST_POINTS:
        return None
    good = seen.ravel() == 1
    matrix, inliers = cv2.estimateAffinePartial2D(old[good], new[good])
    if matrix is None or int(inliers.sum()) < _LEAST_POINTS:
        return None
    turn, shift = matrix[:, :2], matrix[:, 2] / scale
    size = float(np.hypot(*turn[0]))
    middle = turn @ np.array([x + w / 2, y + h / 2]) + shift
    left, top = (middle - size * np.array([w, h]) / 2).tolist()
    box = (left, top, size * w, size * h)
    landmarks = None if face.landmarks is None else face.landmarks @ turn.T + shift
    return Face(box, face.confidence, landmarks)
