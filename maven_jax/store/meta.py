"""`store.json`: read, and checked before anything of it is believed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.errors import UserError
from maven_jax.inputs import mismatch, read_json
from maven_jax.store.schema import (
    FACE_SEARCH,
    FORMAT,
    FORMAT_VERSION,
    PLAN_FILE,
    STORE_FILE,
    STORED_DTYPES,
    TARGETS,
    VERSION_WITH_EXTRA_TARGETS,
    ModalitySpec,
    VideoEntry,
)

# Four days at 30 frames a second: what one video may have.
MOST_FRAMES = 10_000_000
# A record is one message of protobuf, which may be no larger.
RECORD_BYTES = 2**31 - 1
_PATTERN: Any = {
    "chunk_frames": int,
    "modalities": {str: {"dim": int, "spec": dict}},
    "statistics": {str: {"count": int, "mean": [float], "std": [float]}},
    "dropped": [{"video": str, "reason": str}],
    "provenance": dict,
    "splits": {
        str: {
            "shards": [{"file": str, "records": int, "bytes": int}],
            "videos": [
                {
                    "video": str,
                    "stem": str,
                    "num_frames": int,
                    "num_annotated": int,
                    "first_record": int,
                    "fps": float,
                    "duration_s": float,
                    "observed": {str: int},
                    "nonfinite": {str: int},
                    "segments": [[int]],
                }
            ],
        }
    },
}

_VIDEO_KEYS = {f.name for f in dataclasses.fields(VideoEntry)} - {"split"}


def read_meta(path: Path) -> tuple[dict[str, Any], str]:
    """Contents and sha256 of a store's `store.json`.

    Raises:
        UserError: no store, an unfinished one, one of another version, or a file that contradicts
            itself.
    """
    file = path / STORE_FILE
    if not file.exists():
        if (path / PLAN_FILE).exists():
            raise UserError(
                f"{path}: this store is not finished; run the `maven-jax prepare` command that "
                "began it again, it continues where it stopped"
            )
        what = "no such folder" if not path.exists() else f"not a feature store (no {STORE_FILE})"
        raise UserError(f"{path}: {what}; `maven-jax prepare` makes one")
    meta = read_json(file, "what `maven-jax prepare` writes")
    if meta.get("format") != FORMAT:
        raise UserError(f"{file}: not written by `maven-jax prepare`")
    if meta.get("version") not in (FORMAT_VERSION, VERSION_WITH_EXTRA_TARGETS):
        raise UserError(
            f"{file}: store format {meta.get('version')}, this version of maven_jax reads "
            f"{FORMAT_VERSION} and {VERSION_WITH_EXTRA_TARGETS}; run `maven-jax prepare` again"
        )
    if fault := mismatch(meta, _PATTERN) or _contradiction(meta):
        raise UserError(f"{file}: damaged: {fault}")
    return meta, hashlib.sha256(file.read_bytes()).hexdigest()


def _contradiction(meta: Mapping[str, Any]) -> str | None:
    """What cannot be, in words; None if all fits together."""
    chunk, modalities = meta["chunk_frames"], meta["modalities"]
    searches = meta["provenance"].get("face_search", [])
    if fault := mismatch(searches, [FACE_SEARCH | {"videos": int}], "provenance.face_search"):
        return fault
    targets = 0
    for name, modality in modalities.items():
        dtype = modality.get("dtype", "float16")
        if dtype not in STORED_DTYPES:
            known = ", ".join(STORED_DTYPES)
            return f"modality {name!r}: dtype {dtype!r}, expected one of {known}"
        frame_bytes = modality["dim"] * np.dtype(dtype).itemsize
        if not 0 < frame_bytes * max(chunk, 1) <= RECORD_BYTES:
            return f"modality {name!r}: {modality['dim']:,} wide, {chunk:,} frames in a record"
        try:
            targets += ModalitySpec.from_json(name, modality).target is not None
        except ValueError as error:
            return f"extra target {name!r}: {error}"
    if len(modalities) == targets or chunk < 1:
        return f"{len(modalities) - targets} modalities, {chunk:,} frames in a record"
    widths = {name: m["dim"] for name, m in modalities.items()} | {TARGETS: 2}
    for name, moments in meta["statistics"].items():
        if {len(moments["mean"]), len(moments["std"])} != {widths.get(name)}:
            return f"statistics.{name} are not {widths.get(name)} wide"
    if widths.keys() != meta["statistics"].keys():
        return f"statistics are of {', '.join(meta['statistics'])}, not of {', '.join(widths)}"
    faults = (
        f"splits.{name}: {fault}"
        for name, split in meta["splits"].items()
        if (fault := _split_contradiction(split, chunk, set(modalities)))
    )
    return next(faults, None)


def _split_contradiction(
    split: Mapping[str, Any], chunk_frames: int, modalities: set[str]
) -> str | None:
    """As `_contradiction`, of one split: its records are those of its videos, in order."""
    records = 0
    for video in split["videos"]:
        frames, name = video["num_frames"], video["video"]
        if unknown := sorted(video.keys() - _VIDEO_KEYS):
            return f"{name!r} has a key {unknown[0]!r}"
        if fault := mismatch(video.get("notes", []), [str], "notes"):
            return f"{name!r}: {fault}"
        if not 0 < frames <= MOST_FRAMES:
            return f"{name!r} has {frames:,} frames"
        if video["first_record"] != records:
            return f"{name!r} begins at record {video['first_record']:,}, expected {records:,}"
        if not modalities <= video["observed"].keys():
            return (
                f"{name!r}: nothing is said of {', '.join(modalities - video['observed'].keys())}"
            )
        ends = [0]
        for segment in video["segments"]:
            if len(segment) != 2 or not ends[-1] == segment[0] < segment[1]:
                return f"{name!r}: its segments are not one behind the other"
            ends.append(segment[1])
        if ends[-1] != frames:
            return f"{name!r}: {frames:,} frames, {ends[-1]:,} in segments"
        records += -(-frames // chunk_frames)
    for shard in split["shards"]:
        if Path(shard["file"]).name != shard["file"] or not 0 <= shard["records"] <= shard["bytes"]:
            return f"no shard is {str(shard)[:150]}"
        records -= shard["records"]
    return f"{abs(records):,} records too {'few' if records > 0 else 'many'}" if records else None
