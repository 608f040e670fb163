"""Checks a whole corpus before hours of encoding, and names everything that is wrong with it.

| severity | what | what happens |
|---|---|---|
| unusable | annotation: words, nan, inf, other than 2 columns, values outside [-1, 1] other than -5, | the video is left out; the run ends unless that many are allowed |
|          | blank line between frames, no header, no frames, not UTF-8 | |
|          | no video file (unless a frame rate is assumed), or none of its frames decodes | |
|          | no folder of crops, or its names do not count frames from 1, in one way | |
|          | a WAV or transcript that is there and cannot be read (remove it to go on without) | |
|          | annotation over 20 % (and 25 frames) longer than the video: not the same recording | |
|          | the same name in two splits, or two media files of one stem | |
|          | names that lead to other folders, symbolic links that leave the corpus | |
|          | a malformed line in the test template | |
| repaired | annotation longer than the video | times go on by the median frame interval |
|          | video longer than the annotation | its last frames are unused |
|          | crop behind the last frame | unused |
|          | crops of other names or formats (1.jpg, frame_00001.png) | read by their numbers |
|          | broken crop (zero bytes, no picture, libjpeg complains) | the frame is masked |
|          | some segments of a transcript that cannot be | left out |
|          | crop of another size than 112 x 112 | resized |
|          | sound over .5 s longer or shorter than the video | masked where there is none, cut behind the end |
|          | video cut short, repeated timestamps | see `media.frame_times.probe` |
|          | transcript segments out of order, or behind the end of the video | sorted, unused |
| note     | byte order mark, CRLF, spaces, overlapping segments, files of other names, orphans, | ignored |
|          | video without sound or transcript, no annotated frame | that modality is masked |

A crop that is missing is no problem but a frame without a face; missing crops are counted.
"""  # noqa: E501

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from data_prep.corpus.check_video import VideoCheck, check_video
from data_prep.corpus.layout import SPLITS, Corpus, Video, scan
from data_prep.corpus.report import CorpusReport
from maven_jax.errors import UserError
from maven_jax.media.problems import UNUSABLE, Problem, printable, relative
from maven_jax.progress import meter
from maven_jax.runtime.workers import follow_parent


def _check_safely(video: Video, root: Path, assume_fps: float | int | None) -> VideoCheck:
    """`check_video`, where an unforeseen fault costs one video, not the run."""
    try:
        return check_video(video, root, assume_fps)
    except Exception as error:
        message = f"could not be checked: {type(error).__name__}: {printable(str(error), 200)}"
        return _lost(video, root, message)


def _lost(video: Video, root: Path, message: str) -> VideoCheck:
    path = video.media or video.annotation or video.crops or root
    problem = Problem(UNUSABLE, relative(path, root), "", message, video.name)
    return VideoCheck(video, problems=[problem])


def _run(
    videos: list[Video], root: Path, assume_fps: float | int | None, workers: int
) -> Iterator[tuple[int, VideoCheck | None]]:
    """Index and check of each video as they finish; None for those lost with a dying process."""
    # spawn: JAX may have threads by now, and a fork does not survive them.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent)
    try:
        futures: dict[Future[VideoCheck], int] = {
            pool.submit(_check_safely, video, root, assume_fps): i for i, video in enumerate(videos)
        }
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                yield futures[future], None
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _checked(
    videos: list[Video], root: Path, assume_fps: float | int | None, workers: int
) -> Iterator[tuple[int, VideoCheck]]:
    if workers <= 1:
        for i, video in enumerate(videos):
            yield i, _check_safely(video, root, assume_fps)
        return
    lost = []
    for i, video_check in _run(videos, root, assume_fps, workers):
        if video_check is None:
            lost.append(i)
        else:
            yield i, video_check
    # A decoder can crash on a hostile file: each video alone in a process shows which one.
    for i in lost:
        (_, video_check), *_ = list(_run([videos[i]], root, assume_fps, 1))
        yield i, video_check or _lost(videos[i], root, "the process that checked it died")


def check(corpus: Corpus, workers: int = 1, assume_fps: float | int | None = None) -> CorpusReport:
    """Checks every video of a corpus, with progress on screen.

    Args:
        corpus: from `layout.scan`.
        workers: processes; one reads in this process.
        assume_fps: see `check_video`.

    Memory is bounded by the frame times (8 bytes a frame) and one video per worker.
    """
    videos = list(corpus.videos)
    checks: dict[int, VideoCheck] = {}
    with meter("check", float(len(videos)), "videos", initial=0.0) as progress:
        crops = 0
        for i, one in _checked(videos, corpus.root, assume_fps, min(workers, len(videos))):
            checks[i] = one
            crops += one.num_frames - one.missing_crops
            progress.advance(1.0, note=f"{crops:,} crops")
    return CorpusReport(corpus, [checks[i] for i in range(len(videos))])


def run_check(root: Path, assume_fps: float | None, workers: int) -> CorpusReport:
    """Checks the corpus in `root` and prints the report."""
    report = check(scan(root), workers=workers, assume_fps=assume_fps)
    report.show()
    return report


def usable_videos(
    report: CorpusReport, allow_missing: int, limit_videos: int | None = None
) -> tuple[list[VideoCheck], dict[str, str]]:
    """The videos that can be stored, and the reason for each of the others.

    Args:
        report: of `check`.
        allow_missing: how many may be unusable.
        limit_videos: take the first so many of every split, None for all.

    Raises:
        UserError: more are unusable, or none is usable.
    """
    usable = [c for c in report.usable if c.num_frames]
    reasons = dict.fromkeys(report.unusable, "unusable")
    reasons |= {c.video.name: "has no frames" for c in report.usable if not c.num_frames}
    for problem in reversed(report.problems):
        if problem.severity == UNUSABLE:
            reasons[problem.video or problem.file] = str(problem)
    if len(reasons) > allow_missing:
        raise UserError(
            f"{len(reasons)} unusable (--allow-missing {allow_missing}): "
            + "; ".join(sorted(reasons))
        )
    if not usable:
        raise UserError("no video of the corpus is usable")
    if limit_videos is not None:
        first = {s: [c for c in usable if c.video.split == s][:limit_videos] for s in SPLITS}
        usable = [c for split in SPLITS for c in first[split]]
    return usable, dict(sorted(reasons.items()))
