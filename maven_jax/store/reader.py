"""Reads a feature store: per-frame features, annotations and times of every video of a corpus.

A store is a TFDS folder (`tfds.builder_from_directory(path).as_data_source(split)` opens it too)
with `store.json` beside TFDS's own metadata. If it was written to `ROOT/NAME/1.0.0`, TFDS finds it
by name as well: `tfds.data_source(NAME, split=..., data_dir=ROOT)`, or `tfds.load` where TensorFlow
is installed. `maven_jax.store.writer` writes it.

One record is one chunk of `chunk_frames` consecutive frames of one video, the last one padded with
zeros. A video's records follow each other, so a window costs exactly the records it overlaps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from maven_jax.errors import UserError
from maven_jax.store.moments import Moments
from maven_jax.store.records import decode
from maven_jax.store.schema import (
    FORMAT,
    FORMAT_VERSION,
    FRAME_FIELDS,
    INDEX_FOLDER,
    PLAN_FILE,
    STORE_FILE,
    TARGETS,
    Frames,
    ModalitySpec,
    VideoEntry,
    mask_field,
    record_arrays,
    video_file,
)

# Records are fetched in one call up to this size; a batch of windows over long stretches of video
# can want gigabytes of records, of which it keeps little.
FETCH_BYTES = 2**28


class _Wanted(NamedTuple):
    """A record, and where its frames go: fields, which places of theirs, which of its rows."""

    entry: VideoEntry
    chunk: int
    places: list[tuple[Mapping[str, np.ndarray], slice, slice]]


class _File(NamedTuple):
    """A shard as ArrayRecord wants to be told of it, which need not count its records then."""

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
        modalities: name -> spec, in the order they were written in.
        splits: names, in the order train, validation, test, others.
        statistics: modality name or `targets` -> moments of the *training* split, over observed
            (annotated) frames, of the values as stored.
        dropped: (video, reason) of the videos that were to be stored but could not be.
        provenance: what the writer was told about the store's making.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens `path`.

        Raises:
            UserError: not a store, an unfinished one, another format version, a kind of values
                that this version does not know, or a shard is missing or has another size than
                when it was written.
        """
        self.path = Path(path)
        self._meta, self.fingerprint = _read_meta(self.path)
        self.chunk_frames: int = self._meta["chunk_frames"]
        try:
            self.modalities = {
                name: ModalitySpec.from_json(name, m)
                for name, m in self._meta["modalities"].items()
            }
        except ValueError as error:
            raise UserError(f"{self.path / STORE_FILE}: {error}") from None
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
            ValueError: no such split.
        """
        if split not in self._videos:
            raise ValueError(f"{self.path}: no split {split!r}; it has {', '.join(self.splits)}")
        return self._videos[split]

    def shards(self, split: str) -> list[dict[str, Any]]:
        """The split's files in order: dicts of `file`, `records`, `bytes`."""
        return self._meta["splits"][split]["shards"]

    def video_sums(self, entry: VideoEntry) -> dict[str, Any]:
        """Modality name or `targets` -> sums over the video's observed (annotated) frames.

        They lie beside the shards, one file per video, and are only read when asked for: those of
        wide features would make every opening of the store slow.

        Returns:
            Dicts as `RunningMoments.merge_json` takes them.

        Raises:
            UserError: the file is missing or damaged.
        """
        file = self.path / INDEX_FOLDER / video_file(entry.video)
        try:
            facts = json.loads(file.read_bytes())
            sums, video = facts["moments"], facts["video"]
        except FileNotFoundError:
            raise UserError(
                f"{file}: missing, and statistics of single videos need it; copy the whole folder "
                "of the store, or run the `maven-jax prepare` command that made it again"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: damaged: {error}") from error
        widths = {m: spec.dim for m, spec in self.modalities.items()} | {TARGETS: 2}
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
            modalities: which ones; all of the store if None.

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
        places: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Reads frames of several videos at once to where they are wanted.

        Fetches the records that hold one of them, each once, in one batch per split (in several,
        if they are larger than `FETCH_BYTES` together); of a record, only what is asked for is
        looked at, and copied once.

        Args:
            spans: videos (from `videos`) and which of their frames: start, stop and step.
            places: for each span, field (see `record_arrays`) -> array (n, …) that its frames are
                written to; the same fields for all spans.

        Raises:
            ValueError: frames outside their video, or an unknown modality.
            UserError: a shard is damaged; names the file and the video.
        """
        if not spans:
            return
        known = record_arrays(self.chunk_frames, self.modalities)
        arrays = {field: known[field] for field in places[0]}
        wanted: dict[str, dict[int, _Wanted]] = {}
        for (entry, span), out in zip(spans, places):
            frames = _frame_numbers(entry, span)
            chunks, begins = np.unique(frames // self.chunk_frames, return_index=True)
            for chunk, first, behind in zip(chunks, begins, [*begins[1:], len(frames)]):
                origin = chunk * self.chunk_frames
                row = slice(frames[first] - origin, frames[behind - 1] - origin + 1, span.step)
                record = wanted.setdefault(entry.split, {}).setdefault(
                    entry.first_record + int(chunk), _Wanted(entry, int(chunk), [])
                )
                record.places.append((out, slice(first, behind), row))
        for split, records in wanted.items():
            keys = sorted(records)
            for i in range(0, len(keys), self._fetched_at_once):
                block = keys[i : i + self._fetched_at_once]
                for key, serialized in zip(block, self._fetch(split, block, records)):
                    self._copy(split, key, serialized, records[key], arrays)

    def _specs(self, modalities: Sequence[str] | None) -> dict[str, ModalitySpec]:
        names = tuple(self.modalities) if modalities is None else tuple(modalities)
        for name in names:
            if name not in self.modalities:
                raise ValueError(
                    f"{self.path}: no modality {name!r}; it has {', '.join(self.modalities)}"
                )
        return {name: self.modalities[name] for name in names}

    @property
    def _fetched_at_once(self) -> int:
        frame_bytes = sum(m.frame_bytes for m in self.modalities.values())
        return max(1, FETCH_BYTES // (self.chunk_frames * max(frame_bytes, 1)))

    def _fetch(
        self, split: str, keys: Sequence[int], records: Mapping[int, _Wanted]
    ) -> Sequence[bytes]:
        try:
            return self._source(split).__getitems__(keys)
        except Exception as error:  # whatever riegeli, array_record or TFDS make of it
            for key in keys:  # which of them is it?
                try:
                    self._source(split).__getitems__([key])
                except Exception as one:
                    raise self._damaged(split, key, records[key], one) from one
            raise self._damaged(split, keys[0], records[keys[0]], error) from error

    def _copy(
        self,
        split: str,
        key: int,
        serialized: bytes,
        wanted: _Wanted,
        arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    ) -> None:
        """Puts a record's frames where they are wanted."""
        try:
            record = decode(serialized, arrays)
        except ValueError as error:
            raise self._damaged(split, key, wanted, error) from error
        if record["video"] != wanted.entry.video or record["chunk"] != wanted.chunk:
            raise UserError(
                f"{self._shard_of(split, key)}: record {key} of split {split} is not chunk "
                f"{wanted.chunk} of {wanted.entry.video!r}; the file does not belong to this store"
            )
        for out, place, row in wanted.places:
            for field in arrays:
                out[field][place] = record[field][row]

    def _damaged(self, split: str, key: int, wanted: _Wanted, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:200]
        return UserError(
            f"{self._shard_of(split, key)}: damaged, cannot read {wanted.entry.video!r} "
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
                _File(str(self.path / s["file"]), 0, s["records"], s["records"])
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


def _read_meta(path: Path) -> tuple[dict[str, Any], str]:
    """Contents and sha256 of `store.json`."""
    file = path / STORE_FILE
    try:
        raw = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if (path / PLAN_FILE).exists():
            raise UserError(
                f"{path}: this store is not finished; run the `maven-jax prepare` command that "
                "began it again, it continues where it stopped"
            ) from None
        what = "no such folder" if not path.exists() else f"not a feature store (no {STORE_FILE})"
        raise UserError(f"{path}: {what}; `maven-jax prepare` makes one") from None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    try:
        meta = json.loads(raw)
    except ValueError as error:
        raise UserError(f"{file}: damaged: {error}") from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise UserError(f"{file}: not written by `maven-jax prepare`")
    if meta["version"] != FORMAT_VERSION:
        raise UserError(
            f"{file}: store format {meta['version']}, this version of maven_jax reads "
            f"{FORMAT_VERSION}; run `maven-jax prepare` again"
        )
    return meta, hashlib.sha256(raw).hexdigest()


def _check_shard_size(file: Path, num_bytes: int) -> None:
    try:
        found = file.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{file}: this shard of the store is missing") from None
    if found != num_bytes:
        raise UserError(
            f"{file}: damaged, the file has {found:,} bytes and should have {num_bytes:,}"
        )
