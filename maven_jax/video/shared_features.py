"""Sound and words of a recording with several faces: encoded once, read for each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maven_jax.features.device import Clock
from maven_jax.features.reader import Encoders, RecordingReader
from maven_jax.media.recording import Recording
from maven_jax.store.schema import Frames


class SharedFeatures:
    """The features of a recording without its faces, in files: a recording may last for hours.

    Attributes:
        notes: what was odd in the sound and the words.

    Args:
        recording: whose.
        encoders: those of faces are not used.
        folder: an existing one, for the files.

    Raises:
        UserError: the sound or the transcript cannot be read.
    """

    def __init__(self, recording: Recording, encoders: Encoders, folder: Path):
        others = dataclasses.replace(encoders, visual=None)
        reader = RecordingReader(dataclasses.replace(recording, crops=None), others, Clock())
        n = recording.num_frames
        self._values = {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy", mode="w+", dtype=spec.dtype, shape=(n, spec.dim)
            )
            for name, spec in others.specs().items()
        }
        self._masks = {name: np.zeros(n, bool) for name in self._values}
        self._segments = np.full(n, -1, np.int32)
        start = 0
        for block in reader.blocks():
            rows = slice(start, start + len(block))
            for name, values in self._values.items():
                values[rows] = block.features[name]
                self._masks[name][rows] = block.masks[name]
            self._segments[rows] = block.segment_id
            start = rows.stop
        self.notes = reader.notes

    def joined(self, faces: Iterator[Frames]) -> Iterator[Frames]:
        """The blocks of one face's features, with those of sound and words beside them."""
        start = 0
        for block in faces:
            rows = slice(start, start + len(block))
            others = {name: values[rows] for name, values in self._values.items()}
            masks = {name: mask[rows] for name, mask in self._masks.items()}
            yield dataclasses.replace(
                block,
                segment_id=self._segments[rows],
                features={**block.features, **others},
                masks={**block.masks, **masks},
            )
            start = rows.stop
