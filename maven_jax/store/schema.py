"""The feature store on disk: names of files, fields of records, what is known of each video."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

FORMAT = "maven_jax feature store"
FORMAT_VERSION = 1
STORE_FILE = "store.json"
PLAN_FILE = "plan.json"
INDEX_FOLDER = "index"
TARGETS = "targets"
# What a modality's values are stored as: vectors of encoders, or pixels.
STORED_DTYPES = ("float16", "uint8")
# Record fields that are not modalities.
FRAME_FIELDS = ("time_s", "targets", "target_mask", "segment_id")
RECORD_FIELDS = ("video", "chunk", "start_frame", "num_frames", *FRAME_FIELDS)


def mask_field(modality: str) -> str:
    """Record field that says in which frames `modality` was observed."""
    return f"{modality}_mask"


def file_key(video: str) -> str:
    """Name for a video's files that is safe whatever the video is called."""
    return hashlib.sha256(video.encode()).hexdigest()[:32]


def video_file(video: str) -> str:
    """Name, within the index folder, of the file that holds a video's counts and sums."""
    return f"video-{file_key(video)}.json"


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of a store.

    Attributes:
        name: identifier, e.g. `visual`.
        dim: width of its feature vectors.
        spec: how they were made (JSON): encoder, source, weights sha256, untrained,
            preprocessing, versions.
        dtype: of the stored values, one of `STORED_DTYPES`; `uint8` for raw material such as
            pixels, which comes back as it is.
    """

    name: str
    dim: int
    spec: dict[str, Any]
    dtype: str = "float16"

    def __post_init__(self):
        if self.dtype not in STORED_DTYPES:
            raise ValueError(
                f"modality {self.name!r}: dtype {self.dtype!r}; it is one of "
                + ", ".join(STORED_DTYPES)
            )

    @classmethod
    def from_json(cls, name: str, content: Mapping[str, Any]) -> ModalitySpec:
        """The inverse of `to_json`."""
        return cls(name, content["dim"], content["spec"], content.get("dtype", "float16"))

    def to_json(self) -> dict[str, Any]:
        """All but the name. Stores and plans older than `dtype` hold float16 and do not say so."""
        content: dict[str, Any] = {"dim": self.dim, "spec": self.spec}
        return content if self.dtype == "float16" else content | {"dtype": self.dtype}

    @property
    def frame_bytes(self) -> int:
        """Size of one frame's values."""
        return self.dim * np.dtype(self.dtype).itemsize

    @property
    def untrained(self) -> bool:
        """True if the encoder had random weights."""
        return bool(self.spec.get("untrained", False))


def record_arrays(
    chunk_frames: int, modalities: Mapping[str, ModalitySpec]
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Field -> dtype and shape of the arrays of a record, whose bytes it holds as they are."""
    arrays: dict[str, tuple[Any, tuple[int, ...]]] = {
        "time_s": (np.float64, ()),
        TARGETS: (np.float32, (2,)),
        "target_mask": (np.bool_, ()),
        "segment_id": (np.int32, ()),
    }
    for name, modality in modalities.items():
        arrays[name] = (modality.dtype, (modality.dim,))
        arrays[mask_field(name)] = (np.bool_, ())
    return {
        field: (np.dtype(dtype), (chunk_frames, *shape)) for field, (dtype, shape) in arrays.items()
    }


@dataclass(frozen=True)
class VideoEntry:
    """One video of a split.

    Attributes:
        first_record: index of its first chunk within the split's data source.
        num_annotated: frames with valence and arousal.
        stem: name of the media file it comes from; two faces of one video share it.
        observed: modality -> frames in which it was observed.
        nonfinite: modality -> frames that held NaN or infinity and were masked for that.
        segments: (start, stop) frames of each run of one `segment_id`, gaps between transcript
            segments included, in order: together they are the whole video.
    """

    video: str
    split: str
    num_frames: int
    first_record: int
    fps: float
    duration_s: float
    num_annotated: int
    stem: str
    observed: dict[str, int]
    nonfinite: dict[str, int]
    segments: tuple[tuple[int, int], ...]


@dataclass
class Frames:
    """Frames of one video, each later than the one before.

    Attributes:
        time_s: seconds on the video's clock.
        targets: valence and arousal; 0 where `target_mask` is False.
        segment_id: transcript segment, -1 for none.
        features: modality -> (n, c); as read float16 or uint8, whichever is stored; as given to
            the writer any float, or uint8.
        masks: modality -> (n,), False where nothing was observed (features are 0 there).
    """

    time_s: Float64[np.ndarray, "n"]
    targets: Float32[np.ndarray, "n 2"]
    target_mask: Bool[np.ndarray, "n"]
    segment_id: Int32[np.ndarray, "n"]
    features: dict[str, Float[np.ndarray, "n _"] | UInt8[np.ndarray, "n _"]]
    masks: dict[str, Bool[np.ndarray, "n"]]

    def __len__(self) -> int:
        return len(self.time_s)
