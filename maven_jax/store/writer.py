"""Writes a feature store so that no finished part is ever lost or written twice.

    writer = StoreWriter(out, videos=planned, modalities=specs, provenance={...})
    for v in planned:
        if not writer.is_done(v.video):
            with writer.video(v.video, fps, duration_s) as frames:
                frames.append(block)
    store = writer.finish()

On disk, while it is written:

    plan.json               what goes where; a run with another plan is refused
    parts/KEY.array_record  the records of one video
    index/video-KEY.json    its sums and counts: the video is done (readers take the sums from here)
    index/dropped-KEY.json  the video could not be stored, and why
    index/shard-FILE.json   what the shard holds, written just before the shard gets its name
    NAME-SPLIT.array_record-00000-of-00003   a whole shard; its parts are gone
    store.json              written last: the store is complete

Every file appears whole, and every step can be repeated: a process may be killed anywhere, and the
same calls then lead to the same bytes. Different processes, and threads, may write different videos
of one store at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from maven_jax.errors import UserError, listing
from maven_jax.files import LEFTOVERS, publish, sync_directory, whole_file, write_file
from maven_jax.inputs import read_json
from maven_jax.outputs import RECORDS
from maven_jax.runtime.lock import alone
from maven_jax.store.moments import RunningMoments
from maven_jax.store.parts import (
    PART_OPTIONS,
    SHARD_OPTIONS,
    RecordFile,
    RecordForm,
    VideoWriter,
    record_features,
)
from maven_jax.store.plan import (
    Plan,
    PlannedVideo,
    check_same_plan,
    dataset_identity,
    make_plan,
)
from maven_jax.store.reader import Store
from maven_jax.store.schema import (
    FORMAT,
    FORMAT_VERSION,
    INDEX_FOLDER,
    PLAN_FILE,
    STORE_FILE,
    TARGETS,
    VERSION_WITH_EXTRA_TARGETS,
    ModalitySpec,
    file_key,
    video_file,
)

__all__ = ["PlannedVideo", "StoreWriter"]

# Quick to copy and to hash, and few enough files to open all at once.
SHARD_BYTES = 256 * 2**20
_INDEX = "the index of a store under construction"


class StoreWriter:
    """A store under construction in `out`, new or continued."""

    def __init__(
        self,
        out: Path,
        *,
        videos: Sequence[PlannedVideo],
        modalities: Mapping[str, ModalitySpec],
        chunk_frames: int = 100,
        shard_bytes: int = SHARD_BYTES,
        provenance: Mapping[str, Any],
    ):
        """Fixes the plan, or checks that the one in `out` is the same.

        Args:
            out: the store's folder; made if it does not exist.
            videos: all videos that are to be stored, in order.
            modalities: all modalities, in order, and extra targets behind them.
            chunk_frames: frames per record.
            shard_bytes: a shard's size before compression, about.
            provenance: JSON; goes into `store.json`. Nothing in it may change from run to run
                (no times of day), or the store would.

        Raises:
            UserError: the plan is not usable, or differs from the one in `out` (says where), or
                `out` is another kind of folder.
        """
        self._out = Path(out)
        self._parts, self._index = self._out / "parts", self._out / INDEX_FOLDER
        self._provenance = json.loads(json.dumps(provenance))
        self._unplanned: dict[str, str] = {}
        # Of each shard, the videos that were not done when it was last looked at, the first last;
        # and its index as it was last read.
        self._waiting: dict[tuple[str, int], list[str]] = {}
        self._looking = threading.Lock()
        self._shards: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}
        self.plan: Plan = make_plan(self._out, videos, modalities, chunk_frames, shard_bytes)
        if (self._out / PLAN_FILE).exists():
            check_same_plan(self._out, self.plan)
        else:
            _check_kind(self._out)
            self._out.mkdir(parents=True, exist_ok=True)
            # First of all: an empty folder with a plan is a store, one without is not.
            write_file(self._out / PLAN_FILE, _json_bytes(self.plan.to_json()))
        self._index.mkdir(exist_ok=True)
        self._recording = RecordForm(chunk_frames, self.plan.modalities)

    def scratch(self) -> Path:
        """A folder in the store for the caller's own files; `finish` removes it."""
        self._parts.mkdir(exist_ok=True)
        return self._parts

    def is_done(self, video: str) -> bool:
        """Whether the video's frames are stored; a dropped one is not done, it may be retried."""
        if not self._video_file(video).exists():
            return False
        if self._part(video).exists():
            return True
        shard = self._whole_shard(*self.plan.shard_of(video))
        return shard is not None and video in shard["videos"]

    @contextmanager
    def video(
        self, video: str, fps: float, duration_s: float, *, mask_nonfinite: bool = False
    ) -> Iterator[VideoWriter]:
        """Stores one video: `append` its frames to what this yields, all of them, in order.

        When the block ends the video is done; if it raises, nothing of the video is kept.

        Args:
            video: its name in the plan.
            fps: frames per second (for display; frames carry their own times).
            duration_s: its length.
            mask_nonfinite: mask and count observed frames with NaN or infinity, instead of raising.

        Raises:
            UserError: frames that cannot be stored.
            ValueError: not a planned video, or not as many frames as planned.
        """
        if video not in self.plan.videos:
            raise ValueError(f"{video!r} is not a planned video")
        with (
            whole_file(self._part(video)) as temporary,
            RecordFile(temporary, PART_OPTIONS) as file,
        ):
            writer = VideoWriter(self.plan.videos[video], file, self._recording, mask_nonfinite)
            yield writer
            facts = writer.finish() | {"fps": float(fps), "duration_s": float(duration_s)}
        split, index = self.plan.shard_of(video)
        self._unpack(split, index)
        write_file(self._video_file(video), _json_bytes(facts))
        self._dropped_file(video).unlink(missing_ok=True)
        if self._all_done(split, index):
            self._assemble(split, index)

    def _all_done(self, split: str, index: int) -> bool:
        """Whether every video of a shard is done; none that was is looked at again."""
        videos = self.plan.shards[split][index]
        with self._looking:
            waiting = self._waiting.setdefault((split, index), [*reversed(videos)])
            while waiting and self.is_done(waiting[-1]):
                waiting.pop()
            return not waiting

    def drop(self, video: str, reason: str) -> None:
        """Notes that a video cannot be stored; `finish` lists it in the store.

        Also for videos that are not in the plan; those have to be noted again in every run.
        """
        if video in self.plan.videos:
            write_file(self._dropped_file(video), _json_bytes({"video": video, "reason": reason}))
        else:
            self._unplanned[video] = reason

    def dropped(self) -> dict[str, str]:
        """Videos that could not be stored -> why."""
        planned = {
            v: read_json(self._dropped_file(v), _INDEX)["reason"]
            for v in self.plan.videos
            if self._dropped_file(v).exists() and not self.is_done(v)
        }
        return planned | dict(sorted(self._unplanned.items()))

    def finish(self, allow_missing: int = 0) -> Store:
        """Completes the store.

        Args:
            allow_missing: how many dropped videos are acceptable.

        Raises:
            UserError: planned videos are neither done nor dropped, or too many are dropped.
        """
        dropped = self.dropped()
        open_videos = [v for v in self.plan.videos if v not in dropped and not self.is_done(v)]
        if open_videos:
            raise UserError(
                f"{self._out}: {len(open_videos)} of {len(self.plan.videos)} videos are not stored "
                f"yet: {listing(open_videos, 20)}; the same command continues"
            )
        if len(dropped) > allow_missing:
            raise UserError(
                f"{self._out}: {len(dropped)} videos could not be stored and {allow_missing} may "
                f"be missing (--allow-missing): "
                + listing([f"{v} ({reason})" for v, reason in dropped.items()], 20)
            )
        if all(v in dropped for v in self.plan.videos):
            raise UserError(f"{self._out}: not one video could be stored")
        meta = self._meta(dropped)
        self._write_tfds_metadata(meta)
        write_file(self._out / STORE_FILE, _json_bytes(meta))
        sync_directory(self._out)
        shutil.rmtree(self._parts, ignore_errors=True)
        for folder in (self._out, self._index):
            for leftover in folder.glob(LEFTOVERS):
                leftover.unlink(missing_ok=True)
        return Store(self._out)

    def _part(self, video: str) -> Path:
        return self._parts / f"{file_key(video)}.array_record"

    def _video_file(self, video: str) -> Path:
        return self._index / video_file(video)

    def _dropped_file(self, video: str) -> Path:
        return self._index / f"dropped-{file_key(video)}.json"

    def _shard_path(self, split: str, index: int) -> Path:
        return self._out / self.plan.shard_file(split, index)

    def _shard_index(self, split: str, index: int) -> Path:
        return self._index / f"shard-{self.plan.shard_file(split, index)}.json"

    def _whole_shard(self, split: str, index: int) -> dict[str, Any] | None:
        """The shard's index, if both it and the shard are on disk; otherwise None."""
        index_file, path = self._shard_index(split, index), self._shard_path(split, index)
        if not (index_file.exists() and path.exists()):
            return None
        status = index_file.stat()
        version = (status.st_mtime_ns, status.st_ino)
        before, shard = self._shards.get(index_file, (None, {}))
        if before != version:
            shard = read_json(index_file, _INDEX, {"bytes": int, "videos": [str]})
            shard["videos"] = dict.fromkeys(shard["videos"])  # in order, and quick to look up
            self._shards[index_file] = version, shard
        return shard if path.stat().st_size == shard["bytes"] else None

    @contextmanager
    def _shard_lock(self, split: str, index: int) -> Iterator[None]:
        """Lets one process at a time into the block; the lock ends with the process."""
        self._parts.mkdir(exist_ok=True)
        with open(self._parts / f"{self.plan.shard_file(split, index)}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _assemble(self, split: str, index: int) -> dict[str, Any]:
        """Makes the shard from its parts, unless it is whole already; returns its index."""
        with self._shard_lock(split, index):
            shard = self._whole_shard(split, index)
            if shard is None:
                shard = self._join(split, index)
            parts = [p for p in map(self._part, shard["videos"]) if p.exists()]
            if parts:
                sync_directory(self._out)
                sync_directory(self._index)
            for part in parts:
                part.unlink()
            return shard

    def _join(self, split: str, index: int) -> dict[str, Any]:
        """Writes the shard from the parts of the videos that are done; returns its index."""
        final = self._shard_path(split, index)
        joined = self._parts / f"{final.name}.whole"
        videos = [v for v in self.plan.shards[split][index] if self.is_done(v)]
        records = _write_records(
            itertools.chain.from_iterable(_records(self._part(v)) for v in videos),
            joined,
            SHARD_OPTIONS,
        )
        shard = {
            "file": final.name,
            "records": records,
            "bytes": joined.stat().st_size,
            "videos": videos,
        }
        write_file(self._shard_index(split, index), _json_bytes(shard))
        publish(joined, final)
        return shard

    def _unpack(self, split: str, index: int) -> None:
        """Takes a shard apart again, for a video that was dropped when it was made."""
        (self._out / STORE_FILE).unlink(missing_ok=True)
        with self._shard_lock(split, index):
            shard = self._whole_shard(split, index)
            if shard is None:
                return
            records = _records(self._shard_path(split, index))
            for video in shard["videos"]:
                count = read_json(self._video_file(video), _INDEX, {"num_records": int})[
                    "num_records"
                ]
                own = list(itertools.islice(records, count))
                # An existing part is newer, or was unpacked before an interruption.
                if not self._part(video).exists():
                    _write_records(own, self._part(video), PART_OPTIONS)
            sync_directory(self._parts)
            self._shard_path(split, index).unlink()
            self._shard_index(split, index).unlink()

    def _meta(self, dropped: Mapping[str, str]) -> dict[str, Any]:
        """Contents of `store.json`; assembles the shards that are not assembled yet."""
        moments = {m: RunningMoments(spec.dim) for m, spec in self.plan.modalities.items()}
        moments[TARGETS] = RunningMoments(2)
        splits: dict[str, Any] = {}
        for split, planned in self.plan.shards.items():
            if all(v in dropped for shard in planned for v in shard):
                continue
            shards = [self._assemble(split, i) for i in range(len(planned))]
            videos, first = [], 0
            for video in (v for shard in shards for v in shard["videos"]):
                facts = read_json(self._video_file(video), _INDEX)
                sums, count = facts.pop("moments"), facts.pop("num_records")
                videos.append(facts | {"first_record": first, "stem": self.plan.videos[video].stem})
                first += count
                if split == "train":
                    for name, m in moments.items():
                        m.merge_json(sums[name])
            splits[split] = {
                "shards": [{k: s[k] for k in ("file", "records", "bytes")} for s in shards],
                "videos": videos,
            }
        extra = any(spec.target is not None for spec in self.plan.modalities.values())
        return {
            "format": FORMAT,
            "version": VERSION_WITH_EXTRA_TARGETS if extra else FORMAT_VERSION,
            "name": self.plan.name,
            "chunk_frames": self.plan.chunk_frames,
            "modalities": self.plan.to_json()["modalities"],
            "splits": splits,
            "statistics": {
                name: {"count": m.count, "mean": m.mean.tolist(), "std": m.std().tolist()}
                for name, m in moments.items()
            },
            "dropped": [{"video": v, "reason": reason} for v, reason in dropped.items()],
            "provenance": self._provenance,
        }

    def _write_tfds_metadata(self, meta: Mapping[str, Any]) -> None:
        """`dataset_info.json` and `features.json`, by which TFDS opens the folder."""
        self._parts.mkdir(exist_ok=True)
        folder = self._parts / "tfds"
        folder.mkdir(exist_ok=True)
        template = tfds.core.ShardedFileTemplate(
            data_dir=self._out,  # type: ignore[arg-type]
            dataset_name=self.plan.name,
            filetype_suffix="array_record",
        )
        name, version = dataset_identity(self._out)
        info = tfds.core.DatasetInfo(
            builder=tfds.core.dataset_info.DatasetIdentity(
                name=name,
                version=tfds.core.Version(version),
                data_dir=os.fspath(self._out),
                module_name="",
            ),
            description="Per-frame features with valence and arousal, in chunks of consecutive "
            "frames; written by maven_jax.",
            features=record_features(self.plan.chunk_frames, self.plan.modalities),
            disable_shuffling=True,
        )
        info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
        info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=[s["records"] for s in content["shards"]],
                        num_bytes=sum(s["bytes"] for s in content["shards"]),
                        filename_template=template,
                    )
                    for split, content in meta["splits"].items()
                ]
            )
        )
        info.write_to_directory(folder)
        for file in sorted(folder.iterdir()):
            publish(file, self._out / file.name)


@contextmanager
def filling(out: Path, part: tuple[int, int] | None = None) -> Iterator[None]:
    """Keeps other processes from filling the same store, or the same part of it.

    Args:
        out: the store's folder.
        part: (i, n) for the i-th of n parts, which may be filled at the same time.

    Raises:
        UserError: another process does, or `out` is another kind of folder.
    """
    _check_kind(out)
    with contextlib.ExitStack() as locks:
        locks.enter_context(alone(out, "prepare", shared=part is not None))
        if part is not None:
            locks.enter_context(alone(out, f"prepare-{part[0] + 1}-of-{part[1]}"))
        yield


def _check_kind(out: Path) -> None:
    """Raises UserError if `out` is neither a store nor free for one: absent or empty."""
    if not os.path.lexists(out) or (out / PLAN_FILE).exists():
        return
    # What a first attempt may leave that was killed is nobody's.
    if not out.is_dir() or any(
        file.name != RECORDS and not file.match(LEFTOVERS) for file in out.iterdir()
    ):
        raise UserError(f"{out}: exists and is not a feature store; choose another")


def _records(path: Path) -> Iterator[bytes]:
    """The records of a file, one after the other."""
    reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
    try:
        for i in range(reader.num_records()):
            yield reader.read([i])[0]
    finally:
        reader.close()


def _write_records(records: Iterable[bytes], path: Path, options: str) -> int:
    """Writes a whole file of records, or none; returns how many there were."""
    with whole_file(path) as temporary, RecordFile(temporary, options) as file:
        for record in records:
            file.write(record)
    return file.records


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
