"""What a face looks like, by the model's own encoder of faces: the mean over some of its crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.reader import Encoders
from maven_jax.features.visual import CropEncoder
from maven_jax.media.crops import Crops
from maven_jax.media.same_face import SameFace

# Crops of a track that are encoded, evenly spaced.
_CROPS = 16


class _Some:
    """Some crops of a folder, as a `CropFolder`."""

    def __init__(self, crops: Crops):
        chosen = np.linspace(0, len(crops.existing) - 1, min(_CROPS, len(crops.existing)))
        self._crops, self._frames = crops, crops.existing[chosen.round().astype(int)]
        self.existing = np.arange(len(self._frames))

    def load(self, frame: int) -> np.ndarray | None:
        return self._crops.load(int(self._frames[frame]))


def same_face(least: float, encoders: Encoders) -> SameFace:
    """Says by an encoder of single crops which faces are the same.

    Raises:
        UserError: a cosine that means nothing, or the model has no such encoder.
    """
    if not -1 < least < 1:
        raise UserError(f"--same-face {least:g}: expected a cosine above -1 and below 1")
    encoder = encoders.visual
    if not isinstance(encoder, CropEncoder):
        raise UserError("--same-face: the model has no encoder of single face crops to compare by")

    def embedding(folder: Path) -> np.ndarray:
        some = _Some(Crops(folder))
        blocks = [v[m] for v, m in encoder.encode(some, len(some.existing), Clock())]
        rows = np.concatenate(blocks).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        mean = rows.mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)

    return SameFace(least, embedding)
