"""The format of a feature store: its files, the fields of its records, its entry of each video.

One record is one chunk of `chunk_frames` consecutive frames of one video, the last one padded with
zeros. A video's records follow each other, so a window costs exactly the records it overlaps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, UInt8

# In `STORE_FILE`, for whoever opens it.
FORMAT = "maven_jax feature store"
FORMAT_VERSION = 1
# Of stores with extra targets, which the first version would take for features.
VERSION_WITH_EXTRA_TARGETS = 2

# Written last: a folder with it is a finished store.
STORE_FILE = "store.json"
# Written first: a folder with it alone is a store under construction.
PLAN_FILE = "plan.json"
# One file for each video, with its counts and sums.
INDEX_FOLDER = "index"

TARGETS = "targets"
# Record fields that are not modalities; the first hold a value for every frame.
FRAME_FIELDS = ("time_s", TARGETS, "target_mask", "segment_id")
RECORD_FIELDS = ("video", "chunk", "start_frame", "num_frames", *FRAME_FIELDS)
# What a modality's values are stored as: float16 for features of encoders, float32 where that does
# not hold them, uint8 for pixels.
STORED_DTYPES = ("float16", "float32", "uint8")
# How the faces of videos were looked for, as JSON; a pattern of `inputs.mismatch`.
FACE_SEARCH: Any = {
    "detector": str,
    "smallest": float,
    "threshold": (float, None),
    "most": int,
    "every": int,
    "face": str,
}


# A number, one class of several, or several labels that are there or not.
TargetKind = Literal["continuous", "classes", "binary"]
# A yes or no is predicted where its probability is above this.
_LIKELY = 0.5
TARGET_KINDS: tuple[TargetKind, ...] = ("continuous", "classes", "binary")


@dataclass(frozen=True)
class ExtraTarget:
    """A target beside valence and arousal, which a model may learn as well.

    Attributes:
        name: identifier, e.g. `dominance` or `expr`.
        kind: of `TARGET_KINDS`.
        labels: of the outputs: the target's own name, the classes', or those of each yes or no.
    """

    name: str
    kind: TargetKind
    labels: tuple[str, ...]

    @property
    def width(self) -> int:
        """Values of a frame as they are annotated: one number (of a class), or one per label."""
        return len(self.labels) if self.kind == "binary" else 1

    def labels_at(self, outputs: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
        """Which labels their probabilities predict: the likeliest class, or all above 0.5."""
        if self.kind == "classes":
            return outputs.argmax(axis=1)[:, None] == np.arange(len(self.labels))
        return outputs > _LIKELY

    @property
    def columns(self) -> tuple[str, ...]:
        """What its outputs are called in tables: `dominance`, or `expr_Happiness`, `au_AU12`."""
        if self.kind == "continuous":
            return (self.name,)
        return tuple(f"{self.name}_{label}" for label in self.labels)


def file_key(video: str) -> str:
    """A name for a video's files that is safe whatever the video is called."""
    return hashlib.sha256(video.encode()).hexdigest()[:32]


def video_file(video: str) -> str:
    """The file within the index folder that holds a video's counts and sums."""
    return f"video-{file_key(video)}.json"


def mask_field(modality: str) -> str:
    """The record field that says in which frames `modality` was observed."""
    return f"{modality}_mask"


@dataclass(frozen=True)
class ModalitySpec:
    """One modality of a store, or an extra target, which is stored like one.

    Attributes:
        name: identifier, e.g. `visual`.
        dim: width of its feature vectors.
        spec: how they were made (JSON): encoder, source, weights sha256, untrained,
            preprocessing, versions. Of an extra target: `target` (its kind) and `labels`.
        dtype: of the stored values, one of `STORED_DTYPES`.

    Raises:
        ValueError: another dtype.
    """

    name: str
    dim: int
    spec: dict[str, Any]
    dtype: str = "float16"

    def __post_init__(self):
        if self.dtype not in STORED_DTYPES:
            raise ValueError(
                f"modality {self.name!r}: dtype {self.dtype!r}, expected one of "
                + ", ".join(STORED_DTYPES)
            )

    @classmethod
    def of_target(cls, target: ExtraTarget) -> ModalitySpec:
        """How an extra target is stored."""
        spec = {"target": target.kind, "labels": list(target.labels)}
        return cls(target.name, target.width, spec, "float32")

    @property
    def target(self) -> ExtraTarget | None:
        """The extra target that this is; None for a modality.

        Raises:
            ValueError: what is said of it cannot be.
        """
        if "target" not in self.spec:
            return None
        kind, labels = self.spec["target"], self.spec.get("labels")
        if kind not in TARGET_KINDS or not isinstance(labels, list) or not labels:
            raise ValueError(f"{kind!r} is no kind of target, or it has no labels")
        if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
            raise ValueError("its labels are not different texts")
        target = ExtraTarget(self.name, kind, tuple(labels))
        if target.width != self.dim or (kind == "continuous" and len(labels) > 1):
            raise ValueError(f"{self.dim} wide with {len(labels)} labels")
        return target

    @classmethod
    def from_json(cls, name: str, content: Mapping[str, Any]) -> ModalitySpec:
        """The inverse of `to_json`."""
        return cls(name, content["dim"], content["spec"], content.get("dtype", "float16"))

    def to_json(self) -> dict[str, Any]:
        """All but the name; JSON."""
        # Stores and plans older than `dtype` hold float16 and do not say so.
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
    """Field -> dtype and shape of a record's arrays; the record holds their bytes as they are."""
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


@dataclass
class Frames:
    """Frames of one video, each later than the one before.

    Attributes:
        time_s: (n,) seconds on the video's clock.
        targets: (n, 2) valence and arousal; 0 where `target_mask` is False.
        target_mask: (n,) False for frames without annotation.
        segment_id: (n,) transcript segment, -1 for none.
        features: modality -> (n, c). The reader gives the stored dtype; the writer takes any
            float for one of float. Extra targets are among them, if they are asked for.
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


@dataclass(frozen=True)
class VideoEntry:
    """One video of a split.

    Attributes:
        first_record: index of its first chunk within the split's data source.
        num_annotated: frames with valence and arousal.
        stem: name of the media file that it comes from; two faces in one file share it.
        observed: modality -> frames in which it was observed.
        nonfinite: modality -> frames that held NaN or infinity and were masked for that.
        segments: (start, stop) frames of each run of one `segment_id`, in order. Gaps between
            transcript segments are runs too, so together they are the whole video.
        notes: what was odd in its files, in sentences.
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
    notes: list[str] = field(default_factory=list)
