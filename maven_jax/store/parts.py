"""The records of one video: checks its frames, cuts them into records, sums them up."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from maven_jax.errors import UserError
from maven_jax.store.moments import RunningMoments
from maven_jax.store.plan import PlannedVideo
from maven_jax.store.schema import TARGETS, Frames, ModalitySpec, mask_field, record_arrays

# One record per group, so that one can be read without its neighbours. zstd at level 1 takes
# a third off (text vectors repeat within a segment) and still inflates at over 2 GB/s a core.
SHARD_OPTIONS = "group_size:1,zstd:1"
# A part is read once, soon after it was written.
PART_OPTIONS = "group_size:1,uncompressed"
# Of smaller values float16 keeps fewer than four bits, and nothing below 3e-8. Real features have
# some of them; a modality of which they are most is in a unit that float16 does not hold.
SMALLEST_VALUE, MOST_SMALLER = 2.0**-20, 0.5


def record_features(
    chunk_frames: int, modalities: Mapping[str, ModalitySpec]
) -> tfds.features.FeaturesDict:
    """TFDS description of a record; `Frames` says what the fields mean."""
    fields: dict[str, Any] = {
        "video": tfds.features.Text(),
        "chunk": tfds.features.Scalar(np.int32),
        "start_frame": tfds.features.Scalar(np.int32),
        "num_frames": tfds.features.Scalar(np.int32),
    }
    for name, (dtype, shape) in record_arrays(chunk_frames, modalities).items():
        fields[name] = tfds.features.Tensor(
            shape=shape, dtype=dtype.type, encoding=tfds.features.Encoding.BYTES
        )
    return tfds.features.FeaturesDict(fields)


class RecordSerializer:
    """Turns records into bytes that depend on nothing but their content.

    `FeaturesDict.serialize_example` does not: it leaves the order of a protobuf map to a hash that
    is seeded anew in every process.
    """

    def __init__(self, features: tfds.features.FeaturesDict):
        self._features = features
        self._serializer = tfds.core.example_serializer.ExampleSerializer(
            features.get_serialized_info()
        )

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        example = self._serializer.get_tf_example(self._features.encode_example(record))
        return example.SerializeToString(deterministic=True)


class RecordForm:
    """What the records of a store are like.

    Attributes:
        chunk_frames: frames per record.
        modalities: name -> spec.
        serialize: a record to its bytes.
        arrays: field -> dtype and shape.
    """

    def __init__(self, chunk_frames: int, modalities: Mapping[str, ModalitySpec]):
        self.chunk_frames, self.modalities = chunk_frames, modalities
        self.serialize = RecordSerializer(record_features(chunk_frames, modalities))
        self.arrays = record_arrays(chunk_frames, modalities)


class RecordFile:
    """An ArrayRecord file while it is written; the block's end completes it.

    Both `write` and the end raise OSError when the file cannot be written, for instance because
    the disk is full; which of them fails is a matter of buffers.
    """

    def __init__(self, path: Path, options: str):
        self._path = path
        self.records = 0
        with _write_errors(path):
            self._writer = ArrayRecordWriter(str(path), options)

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, kind: type | None, error: object, trace: object) -> None:
        if kind is None:
            self._complete()
        else:
            with contextlib.suppress(OSError), _write_errors(self._path):
                self._writer.close()

    def write(self, record: bytes) -> None:
        """Adds a record."""
        with _write_errors(self._path):
            self._writer.write(record)
        self.records += 1

    def _complete(self) -> None:
        with _write_errors(self._path):
            self._writer.close()
            reader = ArrayRecordReader(str(self._path), "")
            written = reader.num_records()
            reader.close()
        if written != self.records:
            raise OSError(
                errno.EIO, f"{written} of {self.records} records were written", str(self._path)
            )


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turns the errors of array_record, which keep only the text, into OSErrors with their code."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
        code = next((c for c in codes if os.strerror(c) in str(error)), errno.EIO)
        raise OSError(code, os.strerror(code), str(path)) from error


class VideoWriter:
    """Writes the frames of one video, given in blocks of any length.

    Attributes:
        num_frames: frames so far.
        nonfinite: modality -> frames masked because they held NaN or infinity.
        notes: what was odd in the video's files, in sentences; for the store's index.
    """

    def __init__(
        self,
        video: PlannedVideo,
        file: RecordFile,
        form: RecordForm,
        mask_nonfinite: bool,
    ):
        self._video, self._file = video, file
        self._chunk_frames, self._modalities = form.chunk_frames, form.modalities
        modalities = form.modalities
        self._mask_nonfinite = mask_nonfinite
        self._serialize = form.serialize
        self._chunk = {name: np.zeros(shape, dtype) for name, (dtype, shape) in form.arrays.items()}
        self._filled = 0  # rows of the chunk
        self._last_time_s = -np.inf
        self._last_segment: int | None = None
        self._segment_starts: list[int] = []
        self._moments = {m: RunningMoments(spec.dim) for m, spec in modalities.items()}
        self._moments[TARGETS] = RunningMoments(2)
        self.num_frames = 0
        self.nonfinite = dict.fromkeys(modalities, 0)
        self.notes: list[str] = []
        # Modality -> observed values that are not 0, and how many of them are too small.
        self._sizes = {m: np.zeros(2, np.int64) for m in modalities}

    def append(self, frames: Frames) -> None:
        """Adds the next frames.

        Raises:
            UserError: values that cannot be stored; names video, modality and frame.
            ValueError: the block does not have the planned modalities or widths.
        """
        fields = self._checked(frames)
        self._note_segments(frames.segment_id)
        start = 0
        while start < len(frames):
            count = min(self._chunk_frames - self._filled, len(frames) - start)
            for name, values in fields.items():
                self._chunk[name][self._filled : self._filled + count] = values[
                    start : start + count
                ]
            start += count
            self._filled += count
            self.num_frames += count
            if self._filled == self._chunk_frames:
                self._flush()

    def finish(self) -> dict[str, Any]:
        """Writes the last, padded record; returns the video's entry in the store's index.

        Raises:
            UserError: most values of a modality are too small for float16, see `SMALLEST_VALUE`.
            ValueError: more or fewer frames than planned.
        """
        if self._filled:
            self._flush()
        for modality, (nonzero, small) in self._sizes.items():
            if small > MOST_SMALLER * nonzero:
                raise UserError(
                    f"video {self._video.video!r}, {modality}: {small / nonzero:.0%} of its values "
                    f"are below {SMALLEST_VALUE:.2g}, too small for float16; scale this modality"
                )
        if self.num_frames != self._video.num_frames:
            raise ValueError(
                f"{self._video.video}: {self.num_frames} frames written, "
                f"{self._video.num_frames} planned"
            )
        return {
            "video": self._video.video,
            "num_frames": self.num_frames,
            "num_records": self._file.records,
            "num_annotated": self._moments[TARGETS].count,
            "observed": {m: self._moments[m].count for m in self._modalities},
            "nonfinite": self.nonfinite,
            "notes": self.notes,
            "segments": list(
                zip(self._segment_starts, [*self._segment_starts[1:], self.num_frames])
            ),
            "moments": {name: m.to_json() for name, m in self._moments.items()},
        }

    def _note_segments(self, segment_id: np.ndarray) -> None:
        """Notes the frames at which another segment begins."""
        if len(segment_id):
            changed = np.flatnonzero(np.diff(segment_id)) + 1
            begins = [] if segment_id[0] == self._last_segment else [0]
            self._segment_starts += [self.num_frames + int(i) for i in [*begins, *changed]]
            self._last_segment = int(segment_id[-1])

    def _flush(self) -> None:
        """Writes the chunk as a record, padded, and adds it to the sums."""
        for values in self._chunk.values():
            values[self._filled :] = 0
        self._chunk["segment_id"][self._filled :] = -1
        for name in self._modalities:
            self._moments[name].add(self._chunk[name][self._chunk[mask_field(name)]])
        self._moments[TARGETS].add(self._chunk[TARGETS][self._chunk["target_mask"]])
        index = self._file.records
        self._file.write(
            self._serialize(
                {
                    "video": self._video.video,
                    "chunk": index,
                    "start_frame": index * self._chunk_frames,
                    "num_frames": self._filled,
                    **self._chunk,
                }
            )
        )
        self._filled = 0

    def _checked(self, frames: Frames) -> dict[str, np.ndarray]:
        """The block's fields as they will be stored."""
        shapes = {m: f.shape[1:] for m, f in frames.features.items()}
        if shapes != {m: (s.dim,) for m, s in self._modalities.items()}:
            raise ValueError(f"{self._video.video}: the block's modalities are {shapes}")
        self._check_time(frames.time_s)
        fields = {
            "time_s": frames.time_s,
            TARGETS: self._check_targets(frames),
            "target_mask": frames.target_mask,
            "segment_id": frames.segment_id,
        }
        for name in self._modalities:
            fields[name], fields[mask_field(name)] = self._check_features(
                name, frames.features[name], frames.masks[name]
            )
        for name, values in fields.items():
            if len(values) != len(frames):
                raise ValueError(
                    f"{self._video.video}: {name} has {len(values)} of {len(frames)} frames"
                )
        return fields

    def _place(self, modality: str, index: int) -> str:
        return f"video {self._video.video!r}, {modality}, frame {self.num_frames + index}"

    def _check_time(self, time_s: np.ndarray) -> None:
        steps = np.diff(time_s, prepend=self._last_time_s)
        bad = ~np.isfinite(time_s) | ~(steps > 0)
        if bad.any():
            i = int(bad.argmax())
            raise UserError(
                f"{self._place('time', i)}: {time_s[i]} s is not later than the frame before it"
            )
        if len(time_s):
            self._last_time_s = time_s[-1]

    def _check_targets(self, frames: Frames) -> np.ndarray:
        """Targets as they are stored, 0 where not annotated."""
        targets = np.where(frames.target_mask[:, None], frames.targets, 0)
        bad = ~(np.abs(targets) <= 1).all(axis=1)
        if bad.any():
            i = int(bad.argmax())
            raise UserError(
                f"{self._place('annotation', i)}: {targets[i].tolist()} is not within -1 to 1"
            )
        return targets

    def _check_features(
        self, modality: str, values: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values as they are stored, 0 where not observed, and the mask."""
        if (values.dtype == np.uint8) != (self._modalities[modality].dtype == "uint8"):
            raise ValueError(
                f"{self._video.video}: {modality} is {self._modalities[modality].dtype} in the "
                f"store, the block has {values.dtype}"
            )
        if not mask.all():
            values = np.where(mask[:, None], values, values.dtype.type(0))
        if values.dtype == np.uint8:
            return values, mask
        dtype = np.dtype(self._modalities[modality].dtype)
        if dtype == np.float16:
            nonzero = values != 0
            self._sizes[modality] += (
                np.count_nonzero(nonzero),
                np.count_nonzero(nonzero & (np.abs(values) < SMALLEST_VALUE)),
            )
        with np.errstate(over="ignore"):
            stored = values.astype(dtype)
        if np.isfinite(stored).all():
            return stored, mask
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            if not self._mask_nonfinite:
                raise UserError(f"{self._place(modality, int(bad.argmax()))}: not a finite number")
            self.nonfinite[modality] += int(bad.sum())
            mask = mask & ~bad
            stored[bad] = 0
        over = ~np.isfinite(stored)
        if over.any():
            i, j = (int(k[0]) for k in np.nonzero(over))
            raise UserError(
                f"{self._place(modality, i)}, feature {j}: {values[i, j]:g} exceeds what {dtype} "
                f"can hold ({np.finfo(dtype).max:g}); scale this modality"
            )
        return stored, mask
