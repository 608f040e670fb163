"""Reads a feature store: per-frame features, annotations and times of every video of a corpus.

A store is a TFDS folder (`tfds.builder_from_directory(path).as_data_source(split)` opens it too)
with `store.json` beside TFDS's own metadata. If it was written to `ROOT/NAME/1.0.0`, TFDS finds it
by name as well: `tfds.data_source(NAME, split=..., data_dir=ROOT)`, or `tfds.load` where TensorFlow
is installed. `store.schema` describes the format, `store.writer` writes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from maven_jax.errors import UserError, did_you_mean
from maven_jax.files import local_path
from maven_jax.inputs import read_json
from maven_jax.store.meta import read_meta
from maven_jax.store.moments import Moments
from maven_jax.store.records import decode
from maven_jax.store.schema import (
    FRAME_FIELDS,
    INDEX_FOLDER,
    STORE_FILE,
    TARGETS,
    Frames,
    ModalitySpec,
    VideoEntry,
    mask_field,
    record_arrays,
    video_file,
)

# Records are fetched in one call up to this size: windows over long stretches of video may overlap
# gigabytes of records, of which they need few frames.
FETCH_BYTES = 2**28


class _Request(NamedTuple):
    """A record to read, and its copies: the output arrays, rows of these, rows of the record."""

    entry: VideoEntry
    chunk: int
    copies: list[tuple[Mapping[str, np.ndarray], slice, slice]]


class _ShardFile(NamedTuple):
    """A shard for ArrayRecord, with what it would otherwise find out by opening every file."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class Store:
    """Random access to the frames of a finished store.

    Picklable (a worker process opens its own files) and safe to read from several threads.

    Attributes:
        path: the folder.
        chunk_frames: frames per record.
        modalities: name -> spec, in the order in which they were written.
        extra_targets: name -> target beside valence and arousal.
        stored: modalities and extra targets, as the records have them.
        splits: names, in the order train, validation, test, others.
        statistics: modality, extra target or `targets` -> moments of the values as stored, over
            the observed (annotated) frames of the *training* split.
        dropped: (video, reason) of the videos that could not be stored.
        provenance: how the store was made, as the writer was told.
        face_searches: of that, the ways in which faces were looked for, where that is recorded.
        fingerprint: sha256 of `store.json`, which names all of the store's content.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens `path`.

        Raises:
            UserError: not a store, an unfinished one, another version of the format, a dtype that
                this version does not know, or a shard that is missing or of another size than when
                it was written.
        """
        self.path = local_path(path)
        self._meta, self.fingerprint = read_meta(self.path)
        self.chunk_frames: int = self._meta["chunk_frames"]
        self.stored = {
            name: ModalitySpec.from_json(name, m) for name, m in self._meta["modalities"].items()
        }
        targets = {name: spec.target for name, spec in self.stored.items()}
        self.extra_targets = {name: t for name, t in targets.items() if t is not None}
        self.modalities = {n: m for n, m in self.stored.items() if targets[n] is None}
        self.splits: tuple[str, ...] = tuple(self._meta["splits"])
        self.statistics = {
            name: Moments(
                m["count"], np.array(m["mean"], np.float64), np.array(m["std"], np.float64)
            )
            for name, m in self._meta["statistics"].items()
        }
        self.dropped: tuple[tuple[str, str], ...] = tuple(
            (d["video"], d["reason"]) for d in self._meta["dropped"]
        )
        self.provenance: dict[str, Any] = self._meta["provenance"]
        self.face_searches: list[dict[str, Any]] = self.provenance.get("face_search", [])
        self._videos = {
            split: tuple(
                VideoEntry(split=split, **(v | {"segments": tuple(map(tuple, v["segments"]))}))
                for v in s["videos"]
            )
            for split, s in self._meta["splits"].items()
        }
        for split in self.splits:
            for shard in self.shards(split):
                _check_shard_size(self.path / shard["file"], shard["bytes"])
        self._open_sources()

    @property
    def untrained(self) -> bool:
        """True if any modality comes from an encoder with random weights."""
        return any(m.untrained for m in self.modalities.values())

    def videos(self, split: str) -> tuple[VideoEntry, ...]:
        """The split's videos in the order of their records.

        Raises:
            UserError: no such split.
        """
        self.check_split(split)
        return self._videos[split]

    def check_split(self, split: str, asked_by: str = "") -> None:
        """Raises UserError if the store has no such split; `asked_by` begins the message."""
        self._check_name("split", split, self.splits, asked_by)

    def check_modality(self, name: str, asked_by: str = "") -> None:
        """Raises UserError if the store has no such modality; `asked_by` begins the message."""
        self._check_name("modality", name, tuple(self.modalities), asked_by)

    def _check_name(self, what: str, name: str, names: Sequence[str], asked_by: str) -> None:
        if name not in names:
            raise UserError(
                f"{asked_by}{self.path} has no {what} {name!r}{did_you_mean(name, names)}"
            )

    def shards(self, split: str) -> list[dict[str, Any]]:
        """The split's files in order: dicts of `file`, `records`, `bytes`."""
        return self._meta["splits"][split]["shards"]

    def video_sums(self, entry: VideoEntry) -> dict[str, Any]:
        """Modality or `targets` -> sums over the video's observed (annotated) frames.

        Each call reads the video's own file: the sums of wide features in `store.json` would make
        every opening of the store slow.

        Returns:
            Dicts as `RunningMoments.merge_json` takes them.

        Raises:
            UserError: the file is missing or damaged.
        """
        file = self.path / INDEX_FOLDER / video_file(entry.video)
        if not file.exists():
            raise UserError(
                f"{file}: missing, and statistics of single videos need it; copy the whole folder "
                "of the store, or run the `maven-jax prepare` command that made it again"
            )
        sums = {"count": int, "mean": [float], "m2": [float]}
        pattern = {"video": str, "moments": {str: sums}}
        facts = read_json(file, "the index of a video, or it is damaged", pattern)
        sums, video = facts["moments"], facts["video"]
        widths = {m: spec.dim for m, spec in self.stored.items()} | {TARGETS: 2}
        if video != entry.video or {m: len(s["mean"]) for m, s in sums.items()} != widths:
            raise UserError(f"{file}: does not belong to this store")
        return sums

    def read(
        self,
        entry: VideoEntry,
        start: int,
        stop: int,
        modalities: Sequence[str] | None = None,
        step: int = 1,
    ) -> Frames:
        """Reads the frames `range(start, stop, step)` of a video; see `read_many`."""
        return self.read_many([(entry, slice(start, stop, step))], modalities)[0]

    def read_many(
        self, spans: Sequence[tuple[VideoEntry, slice]], modalities: Sequence[str] | None = None
    ) -> list[Frames]:
        """Reads frames of several videos at once; see `read_into`.

        Args:
            spans: videos (from `videos`) and which of their frames: start, stop and step.
            modalities: which ones, extra targets too; all modalities of the store if None.

        Returns:
            One `Frames` for each span, in order.
        """
        specs = self._specs(modalities)
        arrays = record_arrays(self.chunk_frames, specs)
        counts = [len(_frame_numbers(entry, span)) for entry, span in spans]
        results = [{f: np.empty((n, *s[1:]), d) for f, (d, s) in arrays.items()} for n in counts]
        self.read_into(spans, results)
        return [_as_frames(out, specs) for out in results]

    def read_into(
        self,
        spans: Sequence[tuple[VideoEntry, slice]],
        outputs: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Reads frames of several videos at once into given arrays.

        Fetches each record that holds one of the frames once, all of a split in one call (in
        several, if they are larger than `FETCH_BYTES` together). Of a record, only the requested
        fields are decoded, and copied once.

        Args:
            spans: videos (from `videos`) and which of their frames: start, stop and step.
            outputs: for each span, field (see `record_arrays`) -> array (n, …) that its frames are
                written to; the same fields for all spans.

        Raises:
            ValueError: frames outside their video.
            UserError: a shard is damaged; names the file and the video.
        """
        if not spans:
            return
        all_arrays = record_arrays(self.chunk_frames, self.stored)
        arrays = {field: all_arrays[field] for field in outputs[0]}
        requests: dict[str, dict[int, _Request]] = {}
        for (entry, span), out in zip(spans, outputs):
            frames = _frame_numbers(entry, span)
            chunks, begins = np.unique(frames // self.chunk_frames, return_index=True)
            for chunk, begin, end in zip(chunks, begins, [*begins[1:], len(frames)]):
                origin = chunk * self.chunk_frames
                rows = slice(frames[begin] - origin, frames[end - 1] - origin + 1, span.step)
                request = requests.setdefault(entry.split, {}).setdefault(
                    entry.first_record + int(chunk), _Request(entry, int(chunk), [])
                )
                request.copies.append((out, slice(begin, end), rows))
        for split, of_split in requests.items():
            keys = sorted(of_split)
            for i in range(0, len(keys), self._fetched_at_once):
                block = keys[i : i + self._fetched_at_once]
                for key, serialized in zip(block, self._fetch(split, block, of_split)):
                    self._copy(split, key, serialized, of_split[key], arrays)

    def _specs(self, modalities: Sequence[str] | None) -> dict[str, ModalitySpec]:
        names = tuple(self.modalities) if modalities is None else tuple(modalities)
        for name in names:
            self._check_name("modality", name, tuple(self.stored), "")
        return {name: self.stored[name] for name in names}

    @property
    def _fetched_at_once(self) -> int:
        """How many records may be fetched in one call."""
        frame_bytes = sum(m.frame_bytes for m in self.stored.values())
        return max(1, FETCH_BYTES // (self.chunk_frames * max(frame_bytes, 1)))

    def _fetch(
        self, split: str, keys: Sequence[int], requests: Mapping[int, _Request]
    ) -> Sequence[bytes]:
        """The serialized records; UserError names the one that is damaged."""
        try:
            return self._source(split).__getitems__(keys)
        except Exception as error:  # of any type: riegeli and array_record have their own
            for key in keys:  # alone, to tell which of them it is
                try:
                    self._source(split).__getitems__([key])
                except Exception as one:
                    raise self._damaged(split, key, requests[key], one) from one
            raise self._damaged(split, keys[0], requests[keys[0]], error) from error

    def _copy(
        self,
        split: str,
        key: int,
        serialized: bytes,
        request: _Request,
        arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    ) -> None:
        """Copies the requested frames of a record into the output arrays."""
        try:
            record = decode(serialized, arrays)
        except ValueError as error:
            raise self._damaged(split, key, request, error) from error
        video, chunk = request.entry.video, request.chunk
        if record["video"] != video or record["chunk"] != chunk:
            raise UserError(
                f"{self._shard_of(split, key)}: record {key} of split {split} is not chunk "
                f"{chunk} of {video!r}; the file does not belong to this store"
            )
        frames = request.entry.num_frames - chunk * self.chunk_frames
        if record["num_frames"] != min(frames, self.chunk_frames):
            raise UserError(
                f"{self.path / STORE_FILE}: {video!r} has {request.entry.num_frames:,} frames, "
                f"but record {key} of split {split} ends at frame "
                f"{chunk * self.chunk_frames + record['num_frames']:,}: damaged, or another store's"
            )
        for out, out_rows, record_rows in request.copies:
            for field in arrays:
                out[field][out_rows] = record[field][record_rows]

    def _damaged(self, split: str, key: int, request: _Request, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:200]
        return UserError(
            f"{self._shard_of(split, key)}: damaged, cannot read {request.entry.video!r} "
            f"(record {key} of split {split}): {reason}"
        )

    def _shard_of(self, split: str, key: int) -> str:
        """The file that holds this record."""
        first = 0
        for shard in self.shards(split):
            first += shard["records"]
            if key < first:
                return str(self.path / shard["file"])
        raise IndexError(f"{self.path}: split {split} has no record {key}")

    def _source(self, split: str) -> ArrayRecordDataSource:
        """The split's serialized records; files are opened on first use.

        Not by way of TFDS: it would decode all fields, and takes most of a second to import.
        """
        if split not in self._sources:
            files = [
                _ShardFile(str(self.path / s["file"]), 0, s["records"], s["records"])
                for s in self.shards(split)
            ]
            self._sources[split] = ArrayRecordDataSource(files)  # type: ignore
        return self._sources[split]

    def _open_sources(self) -> None:
        self._sources: dict[str, ArrayRecordDataSource] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_sources"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open_sources()


def _frame_numbers(entry: VideoEntry, span: slice) -> np.ndarray:
    """The frames of a span; ValueError if they are not all within the video."""
    if not 0 <= span.start < span.stop <= entry.num_frames or span.step < 1:
        by = f" by {span.step}" if span.step != 1 else ""
        raise ValueError(
            f"{entry.video}: frames {span.start} to {span.stop}{by} asked for, it has 0 to "
            f"{entry.num_frames}"
        )
    return np.arange(span.start, span.stop, span.step)


def _as_frames(out: Mapping[str, np.ndarray], modalities: Iterable[str]) -> Frames:
    return Frames(
        **{field: out[field] for field in FRAME_FIELDS},
        features={m: out[m] for m in modalities},
        masks={m: out[mask_field(m)] for m in modalities},
    )


def _check_shard_size(file: Path, num_bytes: int) -> None:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{file}: this shard of the store is missing") from None
    if size != num_bytes:
        raise UserError(
            f"{file}: damaged, the file has {size:,} bytes and should have {num_bytes:,}"
        )
