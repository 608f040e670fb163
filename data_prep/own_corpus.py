"""One's own videos and ratings as a corpus: `maven-jax corpus --from MINE --out ROOT`.

    MINE/annotations/{train,validation}/<video>.csv     time_s,valence,arousal
    MINE/videos/**/<video>.{mp4,mov,…}
    MINE/transcripts/<video>.{json,vtt,srt,txt}         optional

becomes a corpus in Aff-Wild2's layout (`data_prep.corpus`), with a face crop for every frame in
which a face was found, cut as `maven-jax predict` cuts them. `maven-jax prepare` takes it from
there.

Ratings at any times become one per frame: interpolated linearly between the two rows around it. A
frame before the first row or behind the last one, between rows more than three usual steps apart,
or beside a row that is empty or -5, is not annotated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from data_prep import find_faces
from data_prep.annotations import NOT_ANNOTATED, write_annotation
from data_prep.corpus import ANNOTATIONS, SPLIT_FOLDERS, name_fault
from data_prep.cut_faces import cut_faces
from data_prep.find_faces import Detector
from data_prep.import_files import FeatureRows
from data_prep.import_grid import read_timed
from data_prep.media import MEDIA_SUFFIXES, probe
from data_prep.problems import InputError, printable
from data_prep.transcripts import TRANSCRIPT_SUFFIXES
from maven_jax.command_line import Parser
from maven_jax.errors import UserError
from maven_jax.progress import meter, say

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
    """

    name: str
    split: str
    annotation: Path
    media: Path
    transcript: Path | None


def find_videos(folder: Path) -> list[OwnVideo]:
    """The annotated videos of a folder, by split and name.

    Raises:
        UserError: no such folder or no annotations, an annotation without video, a name in two
            splits, two videos of one name, or a name that cannot be used.
    """
    files: dict[str, Path] = {}
    for path in sorted((folder / "videos").rglob("*")):
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file() and path.name[0] != ".":
            if path.stem in files:
                raise UserError(f"{path}: {files[path.stem]} has the same name")
            files[path.stem] = path
    found: dict[str, OwnVideo] = {}
    for split in SPLIT_FOLDERS:
        for path in sorted((folder / "annotations" / split).glob("*.csv")):
            name, fault = path.stem, name_fault(path.stem)
            if fault:
                raise UserError(f"{path}: {printable(name)!r}: {fault}")
            if name in found:
                raise UserError(f"{path}: {found[name].annotation} annotates the same video")
            if name not in files:
                raise UserError(f"{path}: no video {folder / 'videos' / name}.mp4 (or .mov, …)")
            words = [folder / "transcripts" / (name + s) for s in TRANSCRIPT_SUFFIXES]
            transcript = next((p for p in words if p.is_file()), None)
            found[name] = OwnVideo(name, split, path, files[name], transcript)
    if not found:
        raise UserError(f"{folder}: no annotations; {LAYOUT}")
    missing = [s for s in SPLIT_FOLDERS if not any(v.split == s for v in found.values())]
    if missing:
        raise UserError(
            f"{folder / 'annotations' / missing[0]}: no <video>.csv; videos to train on and others "
            "to validate on are wanted"
        )
    return list(found.values())


def per_frame(path: Path, frame_times_s: Float64[np.ndarray, "n"]) -> Float[np.ndarray, "n 2"]:
    """A CSV's ratings at the frames' times; -5 where a frame is not annotated.

    Raises:
        InputError: (a UserError) the file is not `time_s,valence,arousal`, or rates no frame.
    """
    rows, _ = read_timed(path, "train")
    rated = (rows[:, 1:] != NOT_ANNOTATED).all(axis=1)
    values = np.where(rated[:, None], rows[:, 1:], np.nan)
    found, inside = FeatureRows(values, rows[:, 0]).at(slice(0, len(frame_times_s)), frame_times_s)
    known = inside & np.isfinite(found).all(axis=1)
    if not known.any():
        raise InputError(
            path, "", f"rates none of the video's frames (0 to {frame_times_s[-1]:.2f} s)"
        )
    return np.where(known[:, None], found, NOT_ANNOTATED)


def add_video(
    video: OwnVideo,
    root: Path,
    detector: Detector,
    face: str,
    advance: Callable[[int], None] = lambda frames: None,
) -> str:
    """Writes one video into the corpus, its annotation last; returns a line about it.

    Raises:
        UserError: its files cannot be used.
    """
    info = probe(video.media)
    values = per_frame(video.annotation, info.times_s)
    crops = root / "cropped_aligned" / video.name
    crops.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".faces-", dir=root) as place:
        chosen = cut_faces(
            video.media, info, Path(place), detector=detector, choice=face, advance=advance
        )
        (track, folder), *others = chosen
        if others:
            raise UserError(f"{video.media}: --face {face} gives several faces; choose one")
        if crops.exists():
            shutil.rmtree(crops)
        folder.rename(crops)
    media = root / "videos" / video.media.name
    _put(video.media, media)
    if video.transcript is not None:
        _put(video.transcript, root / "transcripts" / video.transcript.name)
    write_annotation(root / ANNOTATIONS / SPLIT_FOLDERS[video.split] / f"{video.name}.txt", values)
    found, rated = int(track.found.sum()), int((values[:, 0] != NOT_ANNOTATED).sum())
    return (
        f"{video.name} ({video.split}): {len(values):,} frames, {found:,} with a face, "
        f"{rated:,} annotated"
    )


def _put(source: Path, target: Path) -> None:
    """The same file under another name; a copy where links cannot lead."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def make_corpus(folder: Path, root: Path, *, face: str, detector: Detector) -> None:
    """Writes the corpus; videos that are there already are not touched.

    Args:
        folder: see the head of this file.
        root: of the corpus.
        face: which face, see `track_faces.choose`; `all` is not one.
        detector: finds them.

    Raises:
        UserError: the first thing that is wrong, before anything is written where that can be.
    """
    videos = find_videos(folder)
    for split in SPLIT_FOLDERS.values():
        (root / ANNOTATIONS / split).mkdir(parents=True, exist_ok=True)
    lines = []
    frames = [len(probe(v.media).times_s) for v in videos]
    with meter("faces", float(sum(frames)), "frames") as progress:
        for video, count in zip(videos, frames):
            done = root / ANNOTATIONS / SPLIT_FOLDERS[video.split] / f"{video.name}.txt"
            if done.exists():
                progress.advance(count)
                lines.append(f"{video.name} ({video.split}): is there already")
                continue
            lines.append(add_video(video, root, detector, face, progress.advance))
    for line in lines:
        say(line)
    say(f"corpus: {root}; next: maven-jax prepare --root {root} --out STORE --encoders RECIPE")


def main(argv: list[str]) -> int:
    """`maven-jax corpus`."""
    p = Parser(
        prog="maven-jax corpus",
        description="Make a corpus of your own videos and ratings (CSV: time_s,valence,arousal), "
        "with face crops, for `maven-jax prepare`. The same command again adds new videos.",
    )
    p.add_argument("--from", dest="source", required=True, type=Path, metavar="MINE", help=LAYOUT)
    p.add_argument("--out", required=True, type=Path, metavar="ROOT", help="the corpus to write")
    p.add_argument(
        "--face", default="largest", help="whose face: largest (the default), longest or a number"
    )
    p.add_argument(
        "--face-model", type=Path, metavar="ONNX", help="YuNet, instead of OpenCV's Haar cascade"
    )
    args = p.parse_args(argv)
    if args.face == "all":
        raise UserError("--face all: a corpus has one face for each annotation; choose one")
    make_corpus(
        args.source, args.out, face=args.face, detector=find_faces.open_detector(args.face_model)
    )
    return 0
