"""Checks a whole corpus before hours of encoding, and names everything that is wrong with it.

| severity | what | what happens |
|---|---|---|
| unusable | annotation: words, nan, inf, other than 2 columns, values outside [-1, 1] other than -5, | the video is left out; the run ends unless that many are allowed |
|          | blank line between frames, no header, no frames, not UTF-8 | |
|          | no video file (unless a frame rate is assumed), or none of its frames decodes | |
|          | no folder of crops | |
|          | a WAV or transcript that is there and cannot be read (remove it to go on without) | |
|          | annotation over 20 % (and 25 frames) longer than the video: not the same recording | |
|          | the same name in two splits, or two media files of one stem | |
|          | names that lead to other folders, symbolic links that leave the corpus | |
| repaired | annotation longer than the video | times go on by the median frame interval |
|          | video longer than the annotation | its last frames are unused |
|          | crop behind the last frame | unused |
|          | broken crop (truncated, zero bytes, not a JPEG) | the frame is masked |
|          | crop of another size than 112 x 112 | resized |
|          | sound over .5 s longer or shorter than the video | masked where there is none, cut behind the end |
|          | video cut short, repeated timestamps | see `media.probe` |
|          | transcript segments out of order, or behind the end of the video | sorted, unused |
| note     | byte order mark, CRLF, spaces, overlapping segments, files of other names, orphans, | ignored |
|          | video without sound or transcript, no annotated frame | that modality is masked |

A crop that is missing is no problem but a frame without a face; missing crops are counted.
"""  # noqa: E501

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table

from data_prep.annotations import Annotation, read_annotation
from data_prep.corpus import SPLITS, Corpus, Video
from data_prep.faces import CROP_SIZE, Crops, check_crop, crop_name
from data_prep.media import MediaInfo, mean_fps, median_interval, open_audio, probe
from data_prep.problems import (
    NOTE,
    REPAIRED,
    UNUSABLE,
    InputError,
    Problem,
    from_error,
    from_fixes,
    printable,
    relative,
)
from data_prep.transcripts import parse_transcript
from maven_jax.progress import console, meter, say

SOUND_TOLERANCE_S = 0.5
# An annotation this much longer than its video, by share and by frames, is another recording's.
FOREIGN_SHARE, FOREIGN_FRAMES = 0.2, 25
_CROP_THREADS, _CROPS_AT_ONCE = 4, 512
# Named one by one up to here, counted behind.
_NAMED = 20


@dataclass
class VideoCheck:
    """What one video holds and what is wrong with it.

    Attributes:
        video: the video.
        num_frames: frames that exist: those of the annotation, without one those of the video
            (and those that the test template asks for).
        times_s: (num_frames,) time of each frame, seconds on the container's clock.
        fps: of the container's timestamps; 0 when they are not known.
        missing_crops: frames without a crop.
        broken_crops: frames whose crop cannot be used.
        unlabelled: frames that are annotated -5.
        length_difference: what differs: "annotation_minus_video_frames", "crops_beyond",
            "sound_minus_video_s"; empty if nothing does.
        problems: in the order of the files.
    """

    video: Video
    num_frames: int = 0
    times_s: Float[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0))
    fps: float = 0.0
    missing_crops: int = 0
    broken_crops: int = 0
    unlabelled: int = 0
    length_difference: dict[str, float] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether the video can be prepared."""
        return all(problem.severity != UNUSABLE for problem in self.problems)


@dataclass
class _Checker:
    """Checks one video part by part."""

    check: VideoCheck
    root: Path

    def report(self, severity: str, path: Path, message: str, place: str = "") -> None:
        file = relative(path, self.root)
        name = self.check.video.name
        self.check.problems.append(Problem(severity, file, place, message, name))

    def failed(self, error: InputError) -> None:
        self.check.problems.append(from_error(error, self.root, self.check.video.name))

    def fixed(self, path: Path, fixes: list) -> None:
        self.check.problems += from_fixes(fixes, path, self.root, self.check.video.name)

    def annotation(self) -> Annotation | None:
        path = self.check.video.annotation
        if path is None:
            return None
        try:
            annotation = read_annotation(path)
        except InputError as error:
            self.failed(error)
            return None
        self.fixed(path, annotation.fixes)
        self.check.unlabelled = int((~annotation.valid).sum())
        if not annotation.valid.any():
            self.report(NOTE, path, "no frame is annotated: every row is -5")
        return annotation

    def media(self, assume_fps: float | int | None) -> MediaInfo | None:
        video = self.check.video
        if video.media is None:
            where = self.root / "videos" / "**" / f"{video.stem}.mp4"
            if assume_fps is None:
                self.report(UNUSABLE, where, "missing video: frame times are not known")
            else:
                message = f"missing video: {assume_fps:g} frames per second assumed, as asked"
                self.report(REPAIRED, where, message)
            return None
        try:
            info = probe(video.media)
        except InputError as error:
            self.failed(error)
            return None
        self.fixed(video.media, info.fixes)
        return info

    def lengths(
        self, annotation: Annotation | None, info: MediaInfo | None, assume_fps: float | int | None
    ) -> None:
        """Sets frames and their times, by annotation and video."""
        check, video = self.check, self.check.video
        if video.annotation is not None and annotation is None:
            return
        wanted = len(annotation.values) if annotation else video.listed_frames
        if info is None:
            if video.media is None and assume_fps is not None:
                count = wanted or self._last_crop()
                self._set(np.arange(count) / float(assume_fps))
            return
        found = len(info.times_s)
        if annotation is None:
            wanted = max(wanted, found)
        path = video.annotation or video.media
        assert path is not None
        if wanted != found:
            check.length_difference["annotation_minus_video_frames"] = wanted - found
        if wanted <= found:
            self._set(info.times_s[:wanted])
            if wanted < found:
                what = f"{wanted} frames are annotated, the video has {found}"
                self.report(REPAIRED, path, f"{what}: the last {found - wanted} are unused")
            return
        asked = "annotated" if annotation else "in the test template"
        what = f"{wanted} frames are {asked}, the video has {found}"
        if wanted - found > max(FOREIGN_FRAMES, FOREIGN_SHARE * wanted):
            self.report(UNUSABLE, path, f"{what}: too few to be the same recording")
            return
        step = median_interval(info.times_s)
        behind = info.times_s[-1] + step * np.arange(1, wanted - found + 1)
        self._set(np.concatenate([info.times_s, behind]))
        rule = f"the last {wanted - found} continue at the median interval of {step:.4f} s"
        self.report(REPAIRED, path, f"{what}: {rule}")

    def _last_crop(self) -> int:
        crops = self.check.video.crops
        existing = Crops(crops, self.root).existing if crops else np.zeros(0, np.int64)
        return int(existing[-1]) + 1 if len(existing) else 0

    def _set(self, times_s: np.ndarray) -> None:
        self.check.times_s, self.check.num_frames = times_s, len(times_s)
        self.check.fps = mean_fps(times_s) if len(times_s) else 0.0

    def crops(self) -> None:
        check, folder = self.check, self.check.video.crops
        if folder is None:
            where = self.root / "cropped_aligned" / check.video.name
            self.report(UNUSABLE, where, "no folder of crops for this video")
            return
        try:
            index = Crops(folder, self.root)
        except OSError as error:
            self.report(UNUSABLE, folder, f"cannot be read: {error.strerror or error}")
            return
        self._named(NOTE, folder, index.others, "ignored: not a crop's name (00001.jpg, from 1)")
        rule = "a symbolic link that leaves the corpus is not followed"
        self._named(UNUSABLE, folder, index.outside, rule)
        frames = index.existing
        if check.num_frames:
            beyond = [crop_name(int(f)) for f in frames[frames >= check.num_frames]]
            if beyond:
                check.length_difference["crops_beyond"] = len(beyond)
                message = f"behind the last frame ({crop_name(check.num_frames - 1)}): unused"
                self._named(REPAIRED, folder, beyond, message)
            frames = frames[frames < check.num_frames]
            check.missing_crops = check.num_frames - len(frames)
        self._pictures(folder, [crop_name(int(frame)) for frame in frames])

    def _named(self, severity: str, folder: Path, names: list[str], message: str) -> None:
        for name in names[:_NAMED]:
            self.report(severity, folder / printable(name), message)
        if len(names) > _NAMED:
            self.report(severity, folder, f"{len(names) - _NAMED} more: {message}")

    def _pictures(self, folder: Path, names: list[str]) -> None:
        """Looks at the head and the end of every crop."""
        broken: list[tuple[str, str]] = []
        sizes: list[tuple[str, tuple[int, int]]] = []
        for name, found in _check_crops(str(folder), names):
            if isinstance(found, str):
                broken.append((name, found))
            elif found != (CROP_SIZE, CROP_SIZE):
                sizes.append((name, found))
        self.check.broken_crops = len(broken)
        for name, fault in broken[:_NAMED]:
            self.report(REPAIRED, folder / name, f"{fault}: the frame is masked")
        if len(broken) > _NAMED:
            more = f"{len(broken) - _NAMED} more broken crops: their frames are masked"
            self.report(REPAIRED, folder, more)
        if sizes:
            name, (height, width) = sizes[0]
            others = f" (and {len(sizes) - 1} more crops)" if len(sizes) > 1 else ""
            rule = f"resized to {CROP_SIZE} x {CROP_SIZE}{others}"
            self.report(REPAIRED, folder / name, f"{width} x {height} pixels: {rule}")

    def sound(self, info: MediaInfo | None) -> None:
        video = self.check.video
        if video.audio is None:
            if video.media is not None:
                self.report(NOTE, video.media, "no sound: audio is masked")
            return
        if video.audio == video.media:
            if info is None or info.audio_end_s is None:
                return
            start_s, end_s = info.audio_start_s or 0.0, info.audio_end_s
        else:
            try:
                source = open_audio(video.audio)
            except InputError as error:
                self.failed(error)
                return
            start_s, end_s = source.start_s, source.start_s + source.duration_s
        if info is None:
            return
        difference_s = end_s - info.duration_s
        if abs(difference_s) > SOUND_TOLERANCE_S:
            self.check.length_difference["sound_minus_video_s"] = round(difference_s, 3)
            rule = "cut behind the end" if difference_s > 0 else "masked where it is missing"
            what = f"the sound ends at {end_s:.2f} s, the video at {info.duration_s:.2f} s"
            self.report(REPAIRED, video.audio, f"{what}: {rule}")
        if start_s > SOUND_TOLERANCE_S:
            what = f"the sound begins at {start_s:.2f} s"
            self.report(REPAIRED, video.audio, f"{what}: audio is masked before")

    def transcript(self, info: MediaInfo | None) -> None:
        path = self.check.video.transcript
        if path is None:
            where = self.root / "transcripts" / f"{self.check.video.stem}.txt"
            self.report(NOTE, where, "no transcript: text is masked")
            return
        try:
            transcript = parse_transcript(path)
        except InputError as error:
            self.failed(error)
            return
        self.fixed(path, transcript.fixes)
        if info is None:
            return
        late = [s for s in transcript.segments if s.start_s >= info.duration_s]
        if late:
            what = f"{len(late)} segments begin behind the end of the video"
            first = f"the first at {late[0].start_s:.2f} s of {info.duration_s:.2f} s"
            self.report(REPAIRED, path, f"{what} ({first}): unused")


def _check_crops(folder: str, names: list[str]) -> Iterator[tuple[str, str | tuple[int, int]]]:
    """What `check_crop` says of each; several at a time, because disks and networks are slow."""

    def some(part: list[str]) -> list[str | tuple[int, int]]:
        return [check_crop(f"{folder}/{name}") for name in part]

    parts = [names[i : i + _CROPS_AT_ONCE] for i in range(0, len(names), _CROPS_AT_ONCE)]
    with ThreadPoolExecutor(_CROP_THREADS) as pool:
        for part, found in zip(parts, pool.map(some, parts)):
            yield from zip(part, found)


def check_video(video: Video, root: Path, assume_fps: float | int | None = None) -> VideoCheck:
    """Reads everything of one video but the pictures themselves.

    Args:
        video: from `corpus.scan`.
        root: the corpus's folder.
        assume_fps: frame rate of videos whose media file is missing; None makes them unusable.

    Never raises for what is in the files: it is in `problems`.
    """
    checker = _Checker(VideoCheck(video), Path(root))
    annotation = checker.annotation()
    info = checker.media(assume_fps)
    checker.lengths(annotation, info, assume_fps)
    checker.crops()
    checker.sound(info)
    checker.transcript(info)
    return checker.check


def _check_safely(video: Video, root: Path, assume_fps: float | int | None) -> VideoCheck:
    """`check_video`, where a fault that nobody thought of costs one video, not the run."""
    try:
        return check_video(video, root, assume_fps)
    except Exception as error:
        message = f"could not be checked: {type(error).__name__}: {printable(str(error), 200)}"
        return _lost(video, root, message)


def _lost(video: Video, root: Path, message: str) -> VideoCheck:
    path = video.media or video.annotation or video.crops or root
    problem = Problem(UNUSABLE, relative(path, root), "", message, video.name)
    return VideoCheck(video, problems=[problem])


@dataclass
class CorpusReport:
    """What a corpus holds and what is wrong with it.

    Attributes:
        corpus: as scanned.
        checks: one for each of `corpus.videos`, in their order.
        problems: all of layout and contents, the gravest first, each once.
    """

    corpus: Corpus
    checks: list[VideoCheck]
    problems: list[Problem] = field(init=False)

    def __post_init__(self) -> None:
        found = [*self.corpus.problems, *(p for check in self.checks for p in check.problems)]
        order = (UNUSABLE, REPAIRED, NOTE)
        self.problems = sorted(dict.fromkeys(found), key=lambda p: order.index(p.severity))

    @property
    def unusable(self) -> list[str]:
        """What cannot be prepared, by name: videos, and names or files that were refused."""
        names = (p.video or p.file for p in self.problems if p.severity == UNUSABLE)
        return sorted(dict.fromkeys(names))

    @property
    def usable(self) -> list[VideoCheck]:
        """The checks of all videos that can be prepared."""
        unusable = set(self.unusable)
        return [check for check in self.checks if check.video.name not in unusable]

    def counts(self, split: str | None = None) -> dict[str, float]:
        """The numbers of one split, or of all."""
        checks = [c for c in self.checks if split in (None, c.video.split)]
        unusable = set(self.unusable)
        fps = [c.fps for c in checks if c.fps > 0]
        return {
            "videos": len(checks),
            "unusable": sum(c.video.name in unusable for c in checks),
            "frames": sum(c.num_frames for c in checks),
            "fps_min": min(fps, default=0.0),
            "fps_median": float(np.median(fps)) if fps else 0.0,
            "fps_max": max(fps, default=0.0),
            "missing_crops": sum(c.missing_crops for c in checks),
            "broken_crops": sum(c.broken_crops for c in checks),
            "unlabelled": sum(c.unlabelled for c in checks),
            "length_differences": sum(bool(c.length_difference) for c in checks),
            "without_crops": sum(c.video.crops is None for c in checks),
            "without_video": sum(c.video.media is None for c in checks),
            "without_sound": sum(c.video.audio is None for c in checks),
            "without_transcript": sum(c.video.transcript is None for c in checks),
        }

    def table(self) -> Table:
        """The counts, a column for each split."""
        columns = [(s, self.counts(s)) for s in SPLITS] + [("all", self.counts())]
        columns = [(name, counts) for name, counts in columns if counts["videos"]]
        table = Table(title=None)
        table.add_column("")
        for name, _ in columns:
            table.add_column(name, justify="right", no_wrap=True)
        labels = {"unlabelled": "-5 rows", "length_differences": "videos of unequal lengths"}
        labels |= {f"fps_{k}": f"fps, {k}" for k in ("min", "median", "max")}
        for key in self.counts():
            label = labels.get(key, key.replace("_", " "))
            shown = [f"{c[key]:,.2f}" if "fps" in key else f"{c[key]:,}" for _, c in columns]
            table.add_row(label, *shown)
        return table

    def lines(self, limit: int | None = None) -> list[str]:
        """The problems, one to a line under the severity; at most `limit` notes."""
        lines = []
        for severity in (UNUSABLE, REPAIRED, NOTE):
            found = [str(p) for p in self.problems if p.severity == severity]
            if not found:
                continue
            lines.append(f"{severity} ({len(found):,}):")
            shown = found[:limit] if severity == NOTE else found
            lines += [f"  {line}" for line in shown]
            if len(shown) < len(found):
                lines.append(f"  … and {len(found) - len(shown):,} more")
        return lines

    def show(self, limit: int | None = 200) -> None:
        """Prints table, orphans and problems."""
        console.print(self.table())
        orphans = {kind: len(paths) for kind, paths in self.corpus.orphans.items() if paths}
        if orphans:
            say("of no video: " + ", ".join(f"{n:,} {kind}" for kind, n in orphans.items()))
        for line in self.lines(limit):
            say(line)

    def to_json(self) -> dict[str, Any]:
        """Everything but the frame times, as JSON takes it."""
        root = self.corpus.root
        fields = ("severity", "file", "place", "message", "video")
        unusable = set(self.unusable)
        return {
            "root": str(root),
            "splits": {split: self.counts(split) for split in SPLITS},
            "orphans": {
                kind: [relative(path, root) for path in paths]
                for kind, paths in self.corpus.orphans.items()
            },
            "unusable": self.unusable,
            "videos": [
                {
                    "video": c.video.name,
                    "split": c.video.split,
                    "usable": c.video.name not in unusable,
                    "num_frames": c.num_frames,
                    "fps": c.fps,
                    "missing_crops": c.missing_crops,
                    "broken_crops": c.broken_crops,
                    "unlabelled": c.unlabelled,
                    "length_difference": c.length_difference,
                }
                for c in self.checks
            ],
            "problems": [{name: getattr(p, name) for name in fields} for p in self.problems],
        }


def _run(
    videos: list[Video], root: Path, assume_fps: float | int | None, workers: int
) -> Iterator[tuple[int, VideoCheck | None]]:
    """Index and check of each video as they finish; None for those a dying process took along."""
    # spawn: JAX may have threads by now, which a fork does not survive.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        futures: dict[Future[VideoCheck], int] = {
            pool.submit(_check_safely, video, root, assume_fps): i for i, video in enumerate(videos)
        }
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                yield futures[future], None
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
    for i, found in _run(videos, root, assume_fps, workers):
        if found is None:
            lost.append(i)
        else:
            yield i, found
    # A decoder can crash on a hostile file; alone in a process it shows which one.
    for i in lost:
        (_, found), *_ = list(_run([videos[i]], root, assume_fps, 1))
        yield i, found or _lost(videos[i], root, "the process that checked it died")


def check(corpus: Corpus, workers: int = 1, assume_fps: float | int | None = None) -> CorpusReport:
    """Checks every video of a corpus, with progress on screen.

    Args:
        corpus: from `corpus.scan`.
        workers: processes; one reads in this process.
        assume_fps: see `check_video`.

    Memory is bounded by the frame times (8 bytes a frame) and one video per worker.
    """
    videos = list(corpus.videos)
    checks: dict[int, VideoCheck] = {}
    with meter("check", len(videos), "videos") as progress:
        crops = 0
        for i, found in _checked(videos, corpus.root, assume_fps, min(workers, len(videos))):
            checks[i] = found
            crops += found.num_frames - found.missing_crops
            progress.advance(note=f"{crops:,} crops")
    return CorpusReport(corpus, [checks[i] for i in range(len(videos))])
