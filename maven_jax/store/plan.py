"""The plan of a store: which videos it will hold, and in which shard each of them lies."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError
from maven_jax.inputs import read_json
from maven_jax.store.schema import PLAN_FILE, RECORD_FIELDS, ModalitySpec

PLAN_VERSION = 1
SPLIT_ORDER = ("train", "validation", "test")
DEFAULT_NAME = "maven_features"


@dataclass(frozen=True)
class PlannedVideo:
    """A video to store; its writer has to deliver `num_frames` frames."""

    video: str
    split: str
    num_frames: int
    stem: str


@dataclass(frozen=True)
class Plan:
    """Videos in store order and their distribution over shards.

    Attributes:
        name: TFDS dataset name, with which the shards' file names begin.
        chunk_frames: frames per record.
        modalities: name -> spec.
        videos: name -> video, in store order.
        shards: split -> for each shard, the names of its videos; all in store order.
    """

    name: str
    chunk_frames: int
    modalities: dict[str, ModalitySpec]
    videos: dict[str, PlannedVideo]
    shards: dict[str, tuple[tuple[str, ...], ...]]

    def shard_file(self, split: str, index: int) -> str:
        count = len(self.shards[split])
        return f"{self.name}-{split}.array_record-{index:05d}-of-{count:05d}"

    def shard_of(self, video: str) -> tuple[str, int]:
        """Split and index of the shard that holds the video."""
        return self._places[video]

    @functools.cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        return {
            video: (split, i)
            for split, shards in self.shards.items()
            for i, videos in enumerate(shards)
            for video in videos
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "format": "maven_jax store plan",
            "version": PLAN_VERSION,
            "name": self.name,
            "chunk_frames": self.chunk_frames,
            "modalities": {m.name: m.to_json() for m in self.modalities.values()},
            "videos": {
                v.video: {"split": v.split, "num_frames": v.num_frames, "stem": v.stem}
                for v in self.videos.values()
            },
            "shards": {split: [list(s) for s in shards] for split, shards in self.shards.items()},
        }


def check_modality_name(name: str, where: str = "modality") -> None:
    """Raises UserError if a name cannot be a record's field, or clashes with one."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UserError(
            f"{where} {name!r}: a modality's name is a letter followed by letters, digits and _"
        )
    if name in RECORD_FIELDS or name.endswith("_mask"):
        raise UserError(f"{where} {name!r}: this name is taken; choose another one")


def make_plan(
    out: Path,
    videos: Sequence[PlannedVideo],
    modalities: Mapping[str, ModalitySpec],
    chunk_frames: int,
    shard_bytes: int,
) -> Plan:
    """Distributes whole videos over shards of about `shard_bytes`, in order, balanced by frames.

    Raises:
        UserError: names that cannot be used, a video twice, or one without frames.
    """
    for name, spec in modalities.items():
        check_modality_name(name)
        if spec.name != name or spec.dim < 1:
            raise UserError(f"modality {name!r}: {spec.dim} features named {spec.name!r}")
    if not modalities or not videos:
        raise UserError(f"{out}: nothing to store: no {'videos' if modalities else 'modalities'}")
    named: dict[str, PlannedVideo] = {}
    for video in videos:
        _check_video(video)
        if video.video in named:
            raise UserError(f"video {video.video!r} is given twice")
        named[video.video] = video
    splits = sorted({v.split for v in videos}, key=_split_rank)
    # Features, their masks, time, targets and their mask, segment.
    frame_bytes = sum(m.frame_bytes + 1 for m in modalities.values()) + 8 + 9 + 4
    return Plan(
        name=dataset_identity(out)[0],
        chunk_frames=chunk_frames,
        modalities={
            n: replace(m, spec=json.loads(json.dumps(m.spec))) for n, m in modalities.items()
        },
        videos={v.video: v for split in splits for v in videos if v.split == split},
        shards={
            split: _distribute([v for v in videos if v.split == split], shard_bytes // frame_bytes)
            for split in splits
        },
    )


def _split_rank(split: str) -> tuple[int, str]:
    return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)


def _check_video(video: PlannedVideo) -> None:
    try:
        video.video.encode()
        video.stem.encode()
    except UnicodeEncodeError:
        raise UserError(f"video {video.video!r}: its name is not valid Unicode") from None
    if not video.video:
        raise UserError("a video has an empty name")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", video.split) or video.split == "all":
        raise UserError(f"video {video.video!r}: {video.split!r} cannot be the name of a split")
    if video.num_frames < 1:
        raise UserError(f"video {video.video!r} has no frames")


def dataset_identity(out: Path) -> tuple[str, str]:
    """TFDS name and version of a store.

    A store in `.../NAME/1.0.0` has these, and `tfds.builder(NAME, data_dir=...)` finds it. In any
    other folder they are fixed, and the store can be opened by its path alone.
    """
    out = out.absolute()
    parent = out.parent.name
    if re.fullmatch(r"\d+\.\d+\.\d+", out.name) and re.fullmatch(r"[A-Za-z]\w*", parent, re.ASCII):
        return parent, out.name
    return DEFAULT_NAME, "1.0.0"


def _distribute(videos: Sequence[PlannedVideo], shard_frames: int) -> tuple[tuple[str, ...], ...]:
    """Cuts the list of videos into shards that are as equal in frames as whole videos allow."""
    total = sum(v.num_frames for v in videos)
    count = max(1, min(len(videos), round(total / max(shard_frames, 1))))
    shards: list[list[str]] = [[] for _ in range(count)]
    before = 0
    for video in videos:
        middle = before + video.num_frames / 2
        shards[min(count - 1, int(middle * count / total))].append(video.video)
        before += video.num_frames
    return tuple(tuple(s) for s in shards if s)


def check_same_plan(out: Path, plan: Plan) -> None:
    """Raises UserError if the store in `out` was begun with another plan; names a difference."""
    file = out / PLAN_FILE
    begun = read_json(file, "the plan of a store: choose another --out")
    difference = _first_difference(begun, json.loads(json.dumps(plan.to_json())), "")
    if difference:
        raise UserError(
            f"{out}: holds a store begun with other input: {difference}; "
            "choose another --out, or delete that folder"
        )


def _first_difference(begun: Any, now: Any, path: str) -> str:
    """Where two plans differ, in words; empty if they do not."""
    if isinstance(begun, dict) and isinstance(now, dict):
        for key in [*begun, *(k for k in now if k not in begun)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in now:
                return f"{inner} is in the store, but not in this run"
            if key not in begun:
                return f"{inner} is in this run, but not in the store"
            if difference := _first_difference(begun[key], now[key], inner):
                return difference
        if list(begun) != list(now):
            return f"the order of {path or 'its parts'}"
        return ""
    if begun != now:
        if isinstance(begun, list) or isinstance(now, list):
            return f"{path} differ"
        return f"{path} is {begun!r} in the store, {now!r} in this run"
    return ""
