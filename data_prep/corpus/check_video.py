"""Checks the files of one video against each other; `check` lists what is how serious."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.corpus.extra_targets import read_extra
from data_prep.corpus.layout import Video
from maven_jax.media.annotations import Annotation, read_annotation
from maven_jax.media.crops import CROP_SIZE, Crops, crop_name, read_crop
from maven_jax.media.frame_times import MediaInfo, mean_fps, median_interval, probe
from maven_jax.media.problems import (
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
from maven_jax.media.recording import Recording
from maven_jax.media.sound import open_audio
from maven_jax.media.transcripts import parse_transcript
from maven_jax.store.schema import ExtraTarget

SOUND_TOLERANCE_S = 0.5
# An annotation that exceeds its video by more, in share and in frames, is of another recording.
FOREIGN_SHARE, FOREIGN_FRAMES = 0.2, 25
_CROP_THREADS, _CROPS_AT_ONCE = 4, 512
# So many are named one by one, the others counted.
_NAMED = 20


@dataclass
class VideoCheck:
    """What one video holds and what is wrong with it.

    Attributes:
        video: the video; without `audio` if that proved to be an empty stream.
        num_frames: of the annotation; without one, of the video, or of the test template if that
            asks for more.
        times_s: (num_frames,) time of each frame, seconds on the container's clock.
        fps: of the container's timestamps; 0 when they are not known.
        missing_crops: frames without a crop.
        broken_crops: frames whose crop cannot be used.
        unlabelled: frames that are annotated -5.
        length_difference: what differs: "annotation_minus_video_frames", "crops_beyond",
            "sound_minus_video_s"; empty if nothing does.
        problems: in the order of the files.
        extra: extra targets that are annotated -> the file of the annotation.
    """

    video: Video
    num_frames: int = 0
    times_s: Float[np.ndarray, "n"] = field(default_factory=lambda: np.zeros(0))
    fps: float = 0.0
    missing_crops: int = 0
    broken_crops: int = 0
    unlabelled: int = 0
    length_difference: dict[str, float | int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    extra: dict[ExtraTarget, Path] = field(default_factory=dict)

    @property
    def recording(self) -> Recording:
        """What the video's features are made of."""
        video = self.video
        return Recording(
            video.media or video.crops or Path(video.name),
            self.times_s,
            float(self.times_s[-1] - self.times_s[0]) + 1 / self.fps,
            crops=video.crops,
            audio=video.audio,
            transcript=video.transcript,
            annotation=video.annotation,
        )

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
        expected = len(annotation.values) if annotation else video.listed_frames
        if info is None:
            if video.media is None and assume_fps is not None:
                count = expected or self._last_crop()
                self._set(np.arange(count) / float(assume_fps))
            return
        shown = len(info.times_s)
        if annotation is None:
            expected = max(expected, shown)
        path = video.annotation or video.media
        assert path is not None
        if expected != shown:
            check.length_difference["annotation_minus_video_frames"] = expected - shown
        if expected <= shown:
            self._set(info.times_s[:expected])
            if expected < shown:
                what = f"{expected} frames are annotated, the video has {shown}"
                self.report(REPAIRED, path, f"{what}: the last {shown - expected} are unused")
            return
        asked = "annotated" if annotation else "in the test template"
        what = f"{expected} frames are {asked}, the video has {shown}"
        missing = expected - shown
        if missing > max(FOREIGN_FRAMES, FOREIGN_SHARE * expected):
            self.report(UNUSABLE, path, f"{what}: too few to be the same recording")
            return
        step = median_interval(info.times_s)
        behind = info.times_s[-1] + step * np.arange(1, missing + 1)
        self._set(np.concatenate([info.times_s, behind]))
        rule = f"the last {missing} continue at the median interval of {step:.4f} s"
        self.report(REPAIRED, path, f"{what}: {rule}")

    def extra_targets(self) -> None:
        for name, path in self.check.video.extra:
            try:
                target, values = read_extra(path, name)
            except InputError as error:
                self.report(REPAIRED, path, f"{error.message}: {name} is masked", error.place)
                continue
            rows, frames = len(values), self.check.num_frames
            if abs(rows - frames) > max(FOREIGN_FRAMES, FOREIGN_SHARE * frames):
                message = f"{rows} rows for {frames} frames, of another recording: {name} is masked"
                self.report(REPAIRED, path, message)
                continue
            if rows != frames:
                rule = "the others are masked" if rows < frames else "those beyond are unused"
                self.report(REPAIRED, path, f"{rows} rows for {frames} frames: {rule}")
            self.check.extra[target] = path

    def _last_crop(self) -> int:
        crops = self.check.video.crops
        try:
            return Crops(crops, self.root).num_frames if crops else 0
        except InputError as error:
            self.failed(error)
            return 0

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
            index.check_names()
        except InputError as error:
            self.failed(error)
            return
        self._named(NOTE, folder, index.others, "ignored: not a crop's name (00001.jpg, from 1)")
        rule = "a symbolic link that leaves the corpus is not followed"
        self._named(UNUSABLE, folder, index.outside, rule)
        frames = index.existing
        if index.renamed:
            name = index.renamed[min(index.renamed)]
            rule = f"names like {printable(name)} are read by their number, counted from 1"
            self.report(REPAIRED, folder, f"{len(index.renamed):,} crops: {rule}")
        if not len(frames):
            self.report(NOTE, folder, "no crops: the pictures are masked")
        if check.num_frames:
            beyond = [index.path_of(int(f)).name for f in frames[frames >= check.num_frames]]
            if beyond:
                check.length_difference["crops_beyond"] = len(beyond)
                message = f"behind the last frame ({crop_name(check.num_frames - 1)}): unused"
                place = f"to {beyond[-1]}" if len(beyond) > 1 else ""
                self.report(REPAIRED, folder / beyond[0], message, place)
            frames = frames[frames < check.num_frames]
            check.missing_crops = check.num_frames - len(frames)
        self._pictures(folder, [index.path_of(int(frame)).name for frame in frames])

    def _named(self, severity: str, folder: Path, names: list[str], message: str) -> None:
        for name in names[:_NAMED]:
            self.report(severity, folder / printable(name), message)
        if len(names) > _NAMED:
            self.report(severity, folder, f"{len(names) - _NAMED} more: {message}")

    def _pictures(self, folder: Path, names: list[str]) -> None:
        """Decodes every crop: libjpeg notices damage in the picture itself only then."""
        broken: list[tuple[str, str]] = []
        sizes: list[tuple[str, tuple[int, int]]] = []
        for name, size in _check_crops(str(folder), names):
            if isinstance(size, str):
                broken.append((name, size))
            elif size != (CROP_SIZE, CROP_SIZE):
                sizes.append((name, size))
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
            if info is None:
                return
            if info.audio_end_s is None:
                self.check.video = replace(video, audio=None)
                self.report(NOTE, video.audio, "its audio stream is empty: audio is masked")
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
            folder = self.root / "transcripts"
            if folder.is_dir():  # else the layout's own note says it for all videos
                where = folder / f"{self.check.video.stem}.txt"
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
    """Height and width of each, or what is wrong, in several threads."""

    def check_one(name: str) -> str | tuple[int, int]:
        crop = read_crop(Path(folder, name))
        return crop if isinstance(crop, str) else crop.shape[:2]

    def some(part: list[str]) -> list[str | tuple[int, int]]:
        return [check_one(name) for name in part]

    parts = [names[i : i + _CROPS_AT_ONCE] for i in range(0, len(names), _CROPS_AT_ONCE)]
    with ThreadPoolExecutor(_CROP_THREADS) as pool:
        for part, sizes in zip(parts, pool.map(some, parts)):
            yield from zip(part, sizes)


def check_video(video: Video, root: Path, assume_fps: float | int | None = None) -> VideoCheck:
    """Reads everything of one video except its pictures; its crops it does decode.

    Args:
        video: from `layout.scan`.
        root: the corpus's folder.
        assume_fps: frame rate of videos whose media file is missing; None makes them unusable.

    Never raises for what is in the files; it reports that in `problems`.
    """
    checker = _Checker(VideoCheck(video), Path(root))
    annotation = checker.annotation()
    info = checker.media(assume_fps)
    checker.lengths(annotation, info, assume_fps)
    checker.extra_targets()
    checker.crops()
    checker.sound(info)
    checker.transcript(info)
    return checker.check
