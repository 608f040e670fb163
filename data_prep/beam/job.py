"""The worker of `prepare --beam`: what it needs and does, whatever engine calls it.

The job is one file in the store's folder, so that an element of the pipeline is only the name of a
shard: a split and a number.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.corpus.check_video import VideoCheck
from data_prep.corpus.layout import Video
from data_prep.encode import FrameCount, encode_videos, time_table
from data_prep.preparation import open_writer
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.reader import open_encoders
from maven_jax.files import write_file
from maven_jax.progress import say
from maven_jax.store.schema import ExtraTarget
from maven_jax.store.writer import StoreWriter

Shard = tuple[str, int]


@dataclass(frozen=True)
class Job:
    """One run of the pipeline.

    Attributes:
        out: the store, a folder that all workers see.
        checks: its videos, in store order; what is wrong with them does not come along.
        encoders: the recipe, as a plain dict.
        modalities: those to store, in order.
        assume_fps: as for `prepare`.
        workers: threads that decode face crops, in each worker.
        shards: those that lack videos; a shard is a split and its number in the split.
    """

    out: Path
    checks: Sequence[VideoCheck]
    encoders: dict[str, Any]
    modalities: Sequence[str]
    assume_fps: float | None
    workers: int
    shards: Sequence[Shard]

    def write(self, folder: Path) -> Path:
        """Writes the job to a new file in `folder`; returns its path."""
        # A new name for every run, so that a worker that outlives a run never joins the next one.
        file = folder / f"beam-{uuid.uuid4().hex}.job"
        checks = [
            {"video": asdict(c.video), "num_frames": c.num_frames, "fps": c.fps}
            | {"times_s": c.times_s.tolist()}
            | {"extra": [(asdict(target), path) for target, path in c.extra.items()]}
            for c in self.checks
        ]
        content = {k: v for k, v in vars(self).items() if k != "checks"} | {"checks": checks}
        write_file(file, json.dumps(content, default=os.fspath).encode())
        return file


@dataclass(frozen=True)
class JobFiles:
    """The files of a running job, beside each other.

    Attributes:
        job: the job.
    """

    job: Path

    @property
    def failure(self) -> Path:
        """One line on why the pipeline failed, if it did."""
        return self.job.with_suffix(".failure")

    @property
    def log(self) -> Path:
        """What the engine and its workers print."""
        return self.job.with_suffix(".log")

    def messages(self) -> Path:
        """Messages of this process to the user."""
        return self.job.with_suffix(f".{socket.gethostname()}-{os.getpid()}.messages")

    def all_messages(self) -> list[Path]:
        """The messages of all processes."""
        return sorted(self.job.parent.glob(f"{self.job.stem}.*.messages"))


@dataclass
class Worker:
    """Encodes shards in this process; its encoders are opened once.

    One shard at a time, even if the engine calls from several threads: they would only take turns
    on the device, and each would need its memory.
    """

    job: Job
    files: JobFiles
    _lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        began = time.monotonic()
        recipe = recipes.from_json(self.job.encoders)
        # The process that planned the store has already listed the encoders on screen.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            self._encoders = open_encoders(recipe, self.job.modalities, self.job.workers)
        # Refuses a worker whose packages or weights differ from the plan's.
        self._writer: StoreWriter = open_writer(
            self.job.out, self.job.checks, self._encoders, recipe, self.job.assume_fps
        )
        with self._messages():
            name = f"{socket.gethostname()}-{os.getpid()}"
            say(f"worker {name} opened its encoders in {time.monotonic() - began:.1f} s")

    def encode(self, shard: Shard) -> int:
        """Stores the missing videos of a shard; returns how many it stored.

        A video that fails is noted in the store, as in `encode_corpus`.

        Raises:
            UserError: what would stop every other video too.
        """
        split, index = shard
        names = set(self._writer.plan.shards[split][index])
        checks = [
            c
            for c in self.job.checks
            if c.video.name in names and not self._writer.is_done(c.video.name)
        ]
        clock = Clock()
        with self._lock, self._messages():
            began = time.monotonic()
            failed = encode_videos(checks, self._encoders, self._writer, clock, FrameCount())
            stored = len(checks) - len(failed)
            times = time_table(clock, time.monotonic() - began)
            say(f"{split} shard {index + 1}: {stored} videos stored; {times}")
        return stored

    @contextlib.contextmanager
    def _messages(self):
        """Sends the output of the block to a file that the user's process reads."""
        with (
            open(self.files.messages(), "a", buffering=1) as file,
            contextlib.redirect_stdout(file),
        ):
            yield


_workers: dict[Path, Worker] = {}
_opening = threading.Lock()


def worker_of(job_file: Path) -> Worker:
    """This process's worker for a job; opened at the first call."""
    with _opening:
        if job_file not in _workers:
            # Another job's encoders would only take memory.
            _workers.clear()
            job = read(job_file)
            _workers[job_file] = Worker(job, JobFiles(job_file))
        return _workers[job_file]


def read(job_file: Path) -> Job:
    """The job of a file that `Job.write` wrote.

    Raises:
        UserError: there is no such file, so this machine does not see the store's folder.
    """
    try:
        content = json.loads(job_file.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{socket.gethostname()}: no {job_file}: all workers have to see the folder of --out"
        ) from None
    checks = [
        VideoCheck(
            _video(c["video"]),
            c["num_frames"],
            np.array(c["times_s"]),
            c["fps"],
            extra={
                ExtraTarget(**t | {"labels": tuple(t["labels"])}): Path(p) for t, p in c["extra"]
            },
        )
        for c in content["checks"]
    ]
    shards = [(split, index) for split, index in content["shards"]]
    given = {"out": Path(content["out"]), "checks": checks, "shards": shards}
    return Job(**content | given)


def _video(content: dict[str, Any]) -> Video:
    """The inverse of `asdict`."""
    files = ("annotation", "crops", "media", "audio", "transcript")
    paths: dict[str, Any] = {f: Path(content[f]) for f in files if content[f] is not None}
    paths["extra"] = tuple((name, Path(path)) for name, path in content["extra"])
    return Video(**content | paths)
