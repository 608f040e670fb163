"""`maven-jax prepare --beam`: the shards of a store, encoded through Apache Beam.

    this process         checks the corpus, plans the store, shows progress, finishes the store
      beam.pipeline      one process that runs the pipeline
        workers          encode shards, wherever the runner starts them

All of them share one folder, the store. `StoreWriter` lets processes fill it side by side, and what
is stored stays stored, whoever is killed. So the same command continues a run that was cut short,
and nothing has to come back through the pipeline.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from data_prep.beam import pipeline as beam_pipeline
from data_prep.beam.job import Job, JobFiles
from data_prep.corpus.check_video import VideoCheck
from data_prep.preparation import begin
from maven_jax.errors import UserError
from maven_jax.progress import Meter, meter, say
from maven_jax.store.reader import Store
from maven_jax.store.writer import StoreWriter

POLL_S = 1.0


def prepare(
    root: Path,
    out: Path,
    encoders: ConfigDict,
    beam_options: str,
    *,
    modalities: Sequence[str] | None = None,
    allow_missing: int = 0,
    assume_fps: float | None = None,
    workers: int = 2,
    limit_videos: int | None = None,
) -> Store:
    """`data_prep.prepare.prepare` through Beam: the same store, byte for byte.

    Args:
        root: the corpus, in a folder that all workers see.
        out: the store, likewise.
        encoders: a recipe of configs/encoders.
        beam_options: options of Beam, as on a command line.
        modalities: as for `prepare`, like the following.
        allow_missing: how many videos may be unusable or fail.
        assume_fps: frame rate of videos whose container tells no times.
        workers: processes that check, and threads of each worker that decode face crops.
        limit_videos: store only the first so many of every split, None for all.

    Raises:
        UserError: too many videos are unusable or failed (the others are stored), or anything
            else that the user can mend.
    """
    flags = beam_pipeline.parse(beam_options)
    if not beam_pipeline.is_direct(flags) and not (root.is_absolute() and out.is_absolute()):
        raise UserError(
            "--root and --out have to be absolute paths: the workers of this runner start in "
            "folders of their own"
        )
    # This process only describes the encoders; the workers need the GPU's memory.
    jax.config.update("jax_platforms", "cpu")
    checks, opened, writer = begin(
        root,
        out,
        encoders,
        modalities=modalities,
        allow_missing=allow_missing,
        assume_fps=assume_fps,
        workers=workers,
        limit_videos=limit_videos,
    )
    names = list(opened.present())
    del opened
    watch = _Watch(writer, checks)
    if watch.open_shards:
        job = Job(out, checks, encoders.to_dict(), names, assume_fps, workers, watch.open_shards)
        files = JobFiles(job.write(writer.scratch()))
        say(f"{beam_pipeline.describe(flags)}; {len(watch.open_shards)} shards to encode")
        with meter("encode", watch.total_frames, "frames", initial=watch.frames) as progress:
            _run(files, flags, watch, progress)
    return writer.finish(allow_missing)


class _Watch:
    """Watches how the store fills up."""

    def __init__(self, writer: StoreWriter, checks: Sequence[VideoCheck]):
        self._writer = writer
        self._open = {c.video.name: c.num_frames for c in checks}
        self._videos = len(self._open)
        self.total_frames, self.frames = sum(self._open.values()), 0
        self._read: dict[Path, int] = {}
        self.update()
        if self.frames:
            say(f"{self.frames:,} of {self.total_frames:,} frames are in the store already")

    def update(self) -> None:
        """Counts the videos that were stored since the last call."""
        for video in [v for v in self._open if self._writer.is_done(v)]:
            self.frames += self._open.pop(video)

    @property
    def open_shards(self) -> list[tuple[str, int]]:
        """The shards that lack a video."""
        return [
            (split, i)
            for split, shards in self._writer.plan.shards.items()
            for i, videos in enumerate(shards)
            if any(v in self._open for v in videos)
        ]

    def note(self) -> str:
        shards = sum(map(len, self._writer.plan.shards.values()))
        return (
            f"{shards - len(self.open_shards)}/{shards} shards, "
            f"{self._videos - len(self._open)}/{self._videos} videos"
        )

    def say_messages(self, files: JobFiles) -> None:
        """Prints the whole lines that workers have written since the last call."""
        for file in files.all_messages():
            with open(file, "rb") as opened:
                opened.seek(self._read.get(file, 0))
                new = opened.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read[file] = self._read.get(file, 0) + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                say(line)


def _run(files: JobFiles, flags: Sequence[str], watch: _Watch, progress: Meter) -> None:
    """Runs the pipeline and shows how it goes.

    Raises:
        UserError: it failed; says why.
    """

    def look() -> None:
        watch.say_messages(files)
        watch.update()
        progress.advance(watch.frames - progress.done, note=watch.note())

    with _pipeline(files, flags) as process:
        while process.poll() is None:
            time.sleep(POLL_S)
            look()
    look()
    if process.returncode:
        reason = f"it ended with code {process.returncode}"
        with contextlib.suppress(FileNotFoundError):
            reason = files.failure.read_text()
        raise UserError(
            f"Beam: {reason}; {watch.note()} are stored and the same command continues "
            f"(what Beam and its workers printed: {files.log})"
        )


@contextlib.contextmanager
def _pipeline(files: JobFiles, flags: Sequence[str]) -> Iterator[subprocess.Popen]:
    """The pipeline's process, in a group with its workers; none of them outlives the block."""
    command = [sys.executable, "-m", "data_prep.beam.pipeline", str(files.job), *flags]
    with (
        open(files.log, "wb") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
