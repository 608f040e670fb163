"""One's own videos and ratings as a corpus: `maven-jax corpus --from MINE --out ROOT`.

    MINE/annotations/{train,validation}/<video>.csv     time_s,valence,arousal
    MINE/videos/**/<video>.{mp4,mov,…}
    MINE/transcripts/<video>.{json,vtt,srt,txt}         optional

or, with `--labels PATH`, ratings as `maven-jax prepare --labels` reads them (`imports.labels`),
becomes a corpus in Aff-Wild2's layout (`data_prep.corpus.layout`), with a crop for every frame that
shows a face, cut as `maven-jax predict` cuts it. `maven-jax prepare` goes on from there.

Ratings at any times become one per frame, by linear interpolation between the two rows around it.
A frame is not annotated if it lies before the first row or behind the last one, between rows more
than three usual steps apart, or beside a row that is empty or -5.
"""

from __future__ import annotations

import difflib
import filecmp
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from data_prep.corpus import face_records
from data_prep.corpus.extra_targets import write_ratings
from data_prep.corpus.layout import ANNOTATIONS, SPLIT_FOLDERS, name_fault
from data_prep.imports.command import add_label_arguments, labels_of
from data_prep.imports.files import FeatureRows
from data_prep.imports.grid import read_timed
from data_prep.imports.labels import LabelTrack, read_labels
from data_prep.imports.raters import LabelOptions
from data_prep.imports.tables import checked_unit
from maven_jax.command_line import Parser, local_path
from maven_jax.convert import face_detectors
from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.media import face_search
from maven_jax.media.annotations import NOT_ANNOTATED, write_annotation
from maven_jax.media.container import MEDIA_SUFFIXES
from maven_jax.media.cut_faces import cut_faces
from maven_jax.media.face_search import FaceSearch
from maven_jax.media.find_faces import Detector
from maven_jax.media.frame_times import MediaInfo, median_interval, probe
from maven_jax.media.problems import InputError, printable
from maven_jax.media.track_faces import check_choice
from maven_jax.media.transcripts import named_transcript
from maven_jax.outputs import Product
from maven_jax.progress import meter, say
from maven_jax.runtime.lock import alone

LAYOUT = "expected MINE/annotations/{train,validation}/<video>.csv and MINE/videos/<video>.mp4"


@dataclass(frozen=True)
class OwnVideo:
    """One video with its ratings.

    Attributes:
        name: of the annotation and of the video file, without suffix.
        split: `train` or `validation`.
        annotation: the CSV.
        media: the video file.
        transcript: None if there is none.
        ratings: those that were read of another form; None for a CSV of `read_timed`.
    """

    name: str
    split: str
    annotation: Path
    media: Path
    transcript: Path | None
    ratings: LabelTrack | None = None


@dataclass(frozen=True)
class Rated:
    """A video that has been checked, with its ratings.

    Attributes:
        video: its files.
        info: of the media file.
        values: (n, 2) ratings of its n frames, -5 for none.
        extra: of `EXTRA_DIMENSIONS` -> (n,) the same.
    """

    video: OwnVideo
    info: MediaInfo
    values: Float[np.ndarray, "n 2"]
    extra: Mapping[str, Float[np.ndarray, "n"]]


Labels = tuple[Path, LabelOptions]


def find_videos(folder: Path, labels: Labels | None = None) -> tuple[list[OwnVideo], list[str]]:
    """The annotated videos of a folder, by split and name, and notes on unused files.

    Args:
        folder: see the head of this file.
        labels: ratings of another form instead of its annotations, and how they are read.

    Raises:
        UserError: no such folder or no annotations, an annotation without video, a name in two
            splits, two videos of one name, or a name that cannot be used.
    """
    notes: list[str] = []
    files: dict[str, Path] = {}
    for path in sorted((folder / "videos").rglob("*")):
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file() and path.name[0] != ".":
            if path.stem in files:
                raise UserError(f"{path}: {files[path.stem]} has the same name")
            files[path.stem] = path
    videos: dict[str, OwnVideo] = {}
    if labels is None:
        annotations = _annotations(folder)
    else:
        tracks, problems = read_labels(*labels)
        notes += [str(problem) for problem in problems]
        annotations = ((track.video, track.split, track.path, track) for track in tracks)
    for name, split, path, ratings in annotations:
        if split not in SPLIT_FOLDERS:
            notes.append(f"{path}: {printable(name)}: ratings of the {split} split are left out")
            continue
        if fault := name_fault(name):
            raise UserError(f"{path}: {printable(name)!r}: {fault}")
        if name in videos:
            raise UserError(f"{path}: {videos[name].annotation} annotates the same video")
        if name not in files:
            close = difflib.get_close_matches(name, files, n=1)
            hint = f"; is it that of {files[close[0]].name}?" if close else ""
            raise UserError(f"{path}: no video {folder / 'videos' / name}.mp4 (.mov, …){hint}")
        transcript = named_transcript(folder / "transcripts", name)
        videos[name] = OwnVideo(name, split, path, files[name], transcript, ratings)
    where = folder if labels is None else labels[0]
    if not videos:
        raise UserError(f"{where}: no annotations; {LAYOUT}")
    missing = [s for s in SPLIT_FOLDERS if not any(v.split == s for v in videos.values())]
    if missing:
        place = f"{where}: no {missing[0]} video (--splits FILE.csv with the columns video,split)"
        if labels is None:
            place = f"{folder / 'annotations' / missing[0]}: no <video>.csv"
        raise UserError(f"{place}; a corpus needs videos for training and others for validation")
    return list(videos.values()), notes + _unused(folder, videos, files, labels is None)


def _annotations(folder: Path) -> Iterator[tuple[str, str, Path, None]]:
    """Name, split and file of each annotation."""
    for split in SPLIT_FOLDERS:
        for path in sorted((folder / "annotations" / split).glob("*")):
            if path.suffix.lower() == ".csv" and path.name[0] != ".":
                yield path.stem, split, path, None


def _unused(
    folder: Path, videos: Mapping[str, OwnVideo], files: Mapping[str, Path], annotations: bool
) -> list[str]:
    """Notes on files that are in a wrong place or belong to no video."""
    taken = {p for v in videos.values() for p in (v.annotation, v.media, v.transcript)}

    def others(kind: str) -> list[Path]:
        paths = sorted((folder / kind).rglob("*"))
        return [p for p in paths if p.is_file() and p not in taken and p.name[0] != "."]

    return [
        f"{len(paths)} {what}, such as {paths[0]}"
        for paths, what in (
            ([p for p in files.values() if p not in taken], "videos without ratings are left out"),
            (others("annotations") if annotations else [], f"files are no ratings ({LAYOUT})"),
            (others("transcripts"), "transcripts belong to no video"),
        )
        if paths
    ]


def per_frame(
    path: Path, frame_times_s: Float64[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n 2"], list[str]]:
    """A CSV's ratings at the frames' times, -5 where a frame is not annotated, and notes on it.

    Raises:
        InputError: (a UserError) the file is not `time_s,valence,arousal`, rates no frame, or
            most of its times lie outside the video.
    """
    rows, fixes = read_timed(path, "train")
    notes = [": ".join(filter(None, (fix.place, fix.message))) for fix in fixes]
    rated = (rows[:, 1:] != NOT_ANNOTATED).all(axis=1)
    values = np.where(rated[:, None], rows[:, 1:], np.nan)
    found, more = _at_frames(path, rows[:, 0], values, frame_times_s)
    return found, notes + more


def rated_frames(video: OwnVideo, info: MediaInfo) -> tuple[Rated, list[str]]:
    """A video's ratings as `per_frame` gives them; one rating of a whole clip is that of each."""
    track, times_s = video.ratings, info.times_s
    if track is None:
        values, notes = per_frame(video.annotation, times_s)
        return Rated(video, info, values, {}), notes
    if track.time_s is None:
        one = np.where(np.isfinite(track.values).all(), track.values, NOT_ANNOTATED)
        values, notes = np.repeat(one, len(times_s), axis=0), list[str]()
    else:
        values, notes = _at_frames(track.path, track.time_s, track.values, times_s)
    extra = {}
    for name, ratings in track.extra.items():
        own = np.repeat(ratings, len(times_s))
        if track.time_s is not None:
            rows = FeatureRows(ratings[:, None], track.time_s)
            at, inside = rows.at(slice(0, len(times_s)), times_s)
            own = np.where(inside, at[:, 0], np.nan)
        extra[name] = np.where(np.isfinite(own), own, NOT_ANNOTATED)
    return Rated(video, info, values, extra), notes


def _at_frames(
    path: Path,
    time_s: Float[np.ndarray, "r"],
    values: Float[np.ndarray, "r 2"],
    frame_times_s: Float64[np.ndarray, "n"],
) -> tuple[Float[np.ndarray, "n 2"], list[str]]:
    """As `per_frame`, of ratings at times, NaN where nobody rated."""
    notes = []
    end_s = float(frame_times_s[-1]) + median_interval(frame_times_s)
    outside = int(((time_s < frame_times_s[0]) | (time_s > end_s)).sum())
    if 2 * outside > len(time_s):
        raise InputError(
            path,
            "",
            f"{outside} of {len(time_s)} ratings lie outside the video, which ends at "
            f"{end_s:.2f} s; "
            "are their times seconds, and of this video?",
        )
    if outside:
        notes.append(
            f"{outside} of {len(time_s)} ratings lie outside the video, which ends at {end_s:.2f} s"
        )
    ratings, inside = FeatureRows(values, time_s).at(slice(0, len(frame_times_s)), frame_times_s)
    annotated = inside & np.isfinite(ratings).all(axis=1)
    if not annotated.any():
        raise InputError(
            path, "", f"rates none of the video's frames (0 to {frame_times_s[-1]:.2f} s)"
        )
    return np.where(annotated[:, None], ratings, NOT_ANNOTATED), notes


class CorpusEntry:
    """The files of one video in the corpus, and whether they are to be made.

    A video whose faces were cut before is not searched again. Its ratings are written anew, since
    people correct those.
    """

    def __init__(self, rated: Rated, root: Path, folder: Path):
        video, name = rated.video, rated.video.name
        self._rated, self._root = rated, root
        self.annotations = {
            split: (ANNOTATIONS / folder / f"{name}.txt").as_posix()
            for split, folder in SPLIT_FOLDERS.items()
        }
        self.extra = {
            d: (ANNOTATIONS.parent / d / SPLIT_FOLDERS[video.split] / f"{name}.txt").as_posix()
            for d in rated.extra
        }
        self._crops, self._media = f"cropped_aligned/{name}", f"videos/{video.media.name}"
        self._search = f"{face_records.FOLDER}/{name}.json"
        annotation = self.annotations[video.split]
        self.is_done = _is_done(video.media, root / self._media, root / annotation)
        self._links = {} if self.is_done else {self._media: video.media}
        if video.transcript is not None:
            self._links[f"transcripts/{video.transcript.name}"] = video.transcript
        # Where files are linked, those of the corpus are the user's own.
        self._links = {k: v for k, v in self._links.items() if not _is_same(v, root / k)}
        inputs = [p for p in (video.media, video.annotation, video.transcript) if p is not None]
        self.product = Product(
            root,
            "corpus",
            os.path.realpath(folder / "annotations" / name),
            inputs=inputs,
            force=None,
            folders=[self._crops],
            whole=not self.is_done,  # it may have been in the other split
        )

    def check(self) -> None:
        """Raises UserError if the corpus has other files of these names."""
        crops = [] if self.is_done else [self._crops, self._search]
        self.product.check(*self.annotations.values(), *self.extra.values(), *crops, *self._links)

    def write(
        self, cut: Callable[..., Any], search: Mapping[str, Any], advance: Callable[[int], None]
    ) -> str:
        """Writes the files, crops by `cut_faces`; returns a line about them.

        Args:
            cut: `cut_faces` with its options.
            search: these, for the record.
            advance: as that of `cut_faces`.

        Raises:
            UserError: the video cannot be used.
        """
        video, values = self._rated.video, self._rated.values
        with self.product.writing() as folder:
            if self.is_done:
                advance(len(values))
                faces = "faces cut before"
            else:
                count = self._write_crops(folder / self._crops, cut, advance)
                faces = f"{count:,} with a face"
                write_json(folder / self._search, dict(search))
            for name, source in self._links.items():
                _link(source, folder / name)
            write_annotation(folder / self.annotations[video.split], values)
            for name, path in self.extra.items():
                write_ratings(folder / path, name, self._rated.extra[name])
        annotated = int((values[:, 0] != NOT_ANNOTATED).sum())
        line = f"{len(values):,} frames, {faces}, {annotated:,} annotated"
        return f"{video.name} ({video.split}): {line}"

    def _write_crops(
        self, crops: Path, cut: Callable[..., Any], advance: Callable[[int], None]
    ) -> int:
        """Writes a video's crops; returns how many there are."""
        media = self._rated.video.media
        with tempfile.TemporaryDirectory(prefix=".faces-", dir=self._root) as scratch:
            (track, folder), *others = cut(media, self._rated.info, Path(scratch), advance=advance)
            if others:
                raise UserError(f"{media}: --face all gives several faces; choose one")
            crops.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(crops)
        return int(track.found.sum())


def _is_done(source: Path, media: Path, annotation: Path) -> bool:
    """Whether the faces in the corpus were cut from this very file.

    The media file in the corpus may be a link to `source`, so equal bytes prove nothing: if
    `source` was overwritten, it is younger than the annotation, which is written last.
    """
    if not (annotation.exists() and media.exists()):
        return False
    younger = source.stat().st_mtime_ns > annotation.stat().st_mtime_ns
    return not younger and filecmp.cmp(source, media, shallow=False)


def _is_same(source: Path, target: Path) -> bool:
    return target.exists() and not target.is_symlink() and target.samefile(source)


def _link(source: Path, target: Path) -> None:
    """Links `source` to `target`, or copies it where links are not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def make_corpus(
    folder: Path,
    root: Path,
    *,
    face: str,
    detector: Detector,
    search: FaceSearch = FaceSearch(),  # noqa: B008
    labels: Labels | None = None,
) -> None:
    """Writes the corpus; calling it again adds what is new.

    Args:
        folder: see the head of this file.
        root: of the corpus.
        face: which face, see `track_faces.choose`; `all` is not one.
        detector: finds the faces.
        search: how often, and how many.
        labels: see `find_videos`.

    Raises:
        UserError: the first thing that is wrong. All ratings and videos are checked before
            anything is written and before the long search for faces begins. So is a corpus that
            holds other files of the same names.
    """
    inside = [folder / name for name in ("annotations", "videos", "transcripts")]
    inside += [] if labels is None else [labels[0]]
    if root.resolve() == folder.resolve() or any(
        root.resolve().is_relative_to(path.resolve()) for path in inside
    ):
        raise UserError(f"{root}: holds your own files, which this command reads; take another")
    videos, notes = find_videos(folder, labels)
    rated = []
    for video in videos:
        info = probe(video.media)
        one, odd = rated_frames(video, info)
        rated.append(one)
        notes += [f"{video.annotation}: {note}" for note in odd]
        notes += [f"{video.media}: {fix.message}" for fix in info.fixes]
    for note in notes:
        say(f"note: {note}")
    entries = [CorpusEntry(one, root, folder) for one in rated]
    for entry in entries:
        entry.check()
    cut = functools.partial(
        cut_faces, detector=detector, choice=face, most=search.most, every=search.every
    )
    record = face_records.record_of(search, getattr(detector, "name", "another"), face)
    lines = []
    frames = float(sum(len(r.values) for r in rated))
    with alone(root, "corpus"), meter("faces", frames, "frames") as progress:
        for split in SPLIT_FOLDERS.values():
            (root / ANNOTATIONS / split).mkdir(parents=True, exist_ok=True)
        for entry in entries:
            lines.append(entry.write(cut, record, progress.advance))
    for line in lines:
        say(line)
    if dimensions := dict.fromkeys(name for one in rated for name in one.extra):
        say(f"rated beside valence and arousal: {', '.join(dimensions)}")
    say(f"corpus: {root}; next: maven-jax prepare --root {root} --out STORE --encoders RECIPE")


def main(argv: list[str]) -> int:
    """`maven-jax corpus`."""
    p = Parser(
        prog="maven-jax corpus",
        description="Make a corpus of your own videos and ratings (CSV: time_s,valence,arousal), "
        "with face crops, for `maven-jax prepare`. The same command again adds new videos.",
    )
    p.add_argument(
        "--from", dest="source", required=True, type=local_path, metavar="MINE", help=LAYOUT
    )
    p.add_argument(
        "--out", required=True, type=local_path, metavar="ROOT", help="the corpus to write"
    )
    p.add_argument(
        "--face",
        default="largest",
        help="whose face: largest (the default), longest, left, right or a number",
    )
    add_label_arguments(p, "", " instead of MINE/annotations")
    p.add_argument(
        "--time-unit",
        action="append",
        default=[],
        metavar="UNIT",
        help="unit (s, ms, us, min) of the times of --labels, where their column does not say it",
    )
    face_search.add_options(p)
    args = p.parse_args(argv)
    check_choice(args.face)
    if args.face == "all":
        raise UserError("--face all: a corpus has one face for each annotation; choose one")
    for unit in args.time_unit:
        checked_unit(unit)
    search = face_search.search_of(args)
    make_corpus(
        args.source,
        args.out,
        face=args.face,
        detector=face_detectors.open_detector(search),
        search=search,
        labels=labels_of(args),
    )
    return 0
