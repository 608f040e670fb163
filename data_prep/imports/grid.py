"""The frames of videos whose features come from elsewhere: their times and annotations.

Two layouts of annotations are read:

    ROOT/annotations/{train,validation,test}/<video>.csv    time_s,valence,arousal
    ROOT/annotations/VA_Estimation_Challenge/…              as in Aff-Wild2 (`corpus.layout`)

Rows of the first layout have their own times. An empty cell or -5 means not annotated, and a file
of the test split may have `time_s` alone. Frames of the second layout get the times of the video
file, or are evenly spaced at a given rate if there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.corpus import layout as corpus
from data_prep.corpus.check_video import FOREIGN_FRAMES, FOREIGN_SHARE
from data_prep.corpus.extra_targets import fitted, read_extra
from maven_jax.errors import UserError
from maven_jax.media.annotations import NOT_ANNOTATED, read_annotation
from maven_jax.media.frame_times import mean_fps, median_interval, probe
from maven_jax.media.problems import (
    NOTE,
    REPAIRED,
    UNUSABLE,
    Fix,
    InputError,
    Problem,
    from_error,
    from_fixes,
    printable,
    read_text,
    relative,
)
from maven_jax.store.schema import ExtraTarget

LAYOUT = (
    "expected ROOT/annotations/{train,validation,test}/<video>.csv with the columns "
    "time_s,valence,arousal, or ROOT/annotations/VA_Estimation_Challenge/…"
)
MAX_CSV_BYTES = 256 << 20


@dataclass
class Grid:
    """Times and targets of one video's frames.

    Attributes:
        video: its name.
        stem: of its media file.
        split: train, validation or test.
        time_s: (n,) increasing; empty if the video is unusable.
        targets: (n, 2) valence and arousal, 0 where `target_mask` is False.
        target_mask: (n,) False where not annotated.
        problems: of its files.
        whole_clip: one rating holds for the whole clip, whose frames are not known yet.
        extra: extra target -> (n, w) as `types.Batch` has it, NaN in frames without annotation.
    """

    video: str
    stem: str
    split: str
    time_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    targets: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    target_mask: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    problems: list[Problem] = field(default_factory=list)
    whole_clip: bool = False
    extra: dict[ExtraTarget, np.ndarray] = field(default_factory=dict)

    def repeat(self, count: int, fps: float | int) -> None:
        """Repeats the rating of a clip on evenly spaced frames."""
        self.time_s = np.arange(count) / float(fps)
        self.targets = np.repeat(self.targets, count, axis=0)
        self.target_mask = np.repeat(self.target_mask, count)
        self.extra = {t: np.repeat(values, count, axis=0) for t, values in self.extra.items()}

    @property
    def fps(self) -> float:
        return mean_fps(self.time_s)

    @property
    def duration_s(self) -> float:
        return float(self.time_s[-1]) + median_interval(self.time_s)


def parse_number(path: Path, place: str, text: str, hint: str = "") -> float:
    """A finite number.

    Raises:
        InputError: `text` is not a finite number; `hint` ends the message.
    """
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(path, place, f"{printable(text, 40)!r} is not a number{hint}")
    return value


def read_grids(root: Path, fps: float | int | None) -> tuple[list[Grid], list[Problem]]:
    """All videos that ROOT has annotations for (or lists as test videos), and what is wrong.

    Videos that cannot be used are among them, without frames and with an `unusable` problem.

    Args:
        root: see above.
        fps: frame rate of videos that have no video file (second layout).

    Raises:
        UserError: ROOT has neither layout, or both.
    """
    root = Path(root)
    folders = [s for s in corpus.SPLITS if (root / "annotations" / s).is_dir()]
    challenge = (root / corpus.ANNOTATIONS).is_dir()
    if folders and challenge:
        raise UserError(
            f"{root / 'annotations'}: {corpus.ANNOTATIONS.name} and {', '.join(folders)} side by "
            "side; remove one of the two kinds of annotations"
        )
    if folders:
        return _timed_grids(root, folders)
    if not challenge:
        raise UserError(f"{root}: no annotations; {LAYOUT}")
    scanned = corpus.scan(root, required=())
    # Missing crops or sound do not matter here; names and duplicates do.
    problems = [p for p in scanned.problems if p.severity == UNUSABLE]
    grids = [_challenge_grid(root, video, fps) for video in scanned.videos]
    return grids, problems


def _timed_grids(root: Path, folders: list[str]) -> tuple[list[Grid], list[Problem]]:
    grids: list[Grid] = []
    problems: list[Problem] = []
    annotations: dict[str, Path] = {}
    for split in folders:
        for path in sorted((root / "annotations" / split).iterdir()):
            if path.name.startswith("."):
                continue
            file, name = relative(path, root), path.stem
            if path.suffix.lower() != ".csv":
                problems.append(Problem(NOTE, file, "", "ignored: not a .csv file"))
                continue
            fault = corpus.name_fault(path.name)
            if not fault and not path.resolve().is_relative_to(root.resolve()):
                fault = "a symbolic link that leaves the corpus is not followed"
            if not fault and name in annotations:
                fault = f"video {name!r} is also in {relative(annotations[name], root)}"
            if fault:
                problems.append(Problem(UNUSABLE, file, "", fault, printable(name)))
                continue
            annotations[name] = path
            grids.append(_timed_grid(root, path, split))
    return grids, problems


def _timed_grid(root: Path, path: Path, split: str) -> Grid:
    grid = Grid(path.stem, path.stem, split)
    try:
        rows, fixes = read_timed(path, split)
    except InputError as error:
        grid.problems.append(from_error(error, root, grid.video))
        return grid
    grid.problems += from_fixes(fixes, path, root, grid.video)
    grid.time_s = rows[:, 0]
    grid.target_mask = (rows[:, 1:] != NOT_ANNOTATED).all(axis=1)
    grid.targets = np.where(grid.target_mask[:, None], rows[:, 1:], 0).astype(np.float32)
    return grid


def read_timed(path: Path, split: str) -> tuple[np.ndarray, list]:
    """Rows of an annotation with times, and what was repaired or ignored while reading.

    Returns:
        (n, 3) time (rising), valence, arousal; -5 where not annotated.

    Raises:
        InputError: names the first line that is not such a row.
    """
    text, fixes = read_text(path, MAX_CSV_BYTES, "an annotation")
    if not text.strip():
        raise InputError(path, "", "the file is empty")
    lines = text.rstrip().split("\n")
    names = [name.strip().strip('"').lower() for name in lines[0].split(",")]
    needed = ["time_s"] if split == "test" and "valence" not in names else list(_COLUMNS)
    missing = [name for name in needed if names.count(name) != 1]
    if missing:
        expected = ",".join(_COLUMNS)
        other = next((f"; is it separated by {n}?" for s, n in _OTHERS if s in lines[0]), "")
        message = f"expected {expected}, found '{printable(lines[0], 60)}'{other}"
        raise InputError(path, "line 1", message)
    unused = [name for name in names if name not in _COLUMNS]
    if unused:
        fixes.append(Fix(NOTE, "line 1", f"columns ignored: {printable(', '.join(unused))}"))
    if len(lines) == 1:
        raise InputError(path, "", "no frames behind the header")
    rows = np.full((len(lines) - 1, 3), NOT_ANNOTATED)
    columns = [names.index(name) for name in needed]
    before = -np.inf
    for i, line in enumerate(lines[1:]):
        place, cells = f"line {i + 2}", line.split(",")
        if len(cells) != len(names):
            count = f"{len(cells)} column{'s' * (len(cells) > 1)} instead of {len(names)}"
            raise InputError(path, place, count if line.strip() else "a blank line")
        for k, column in enumerate(columns):
            cell = cells[column].strip().strip('"')
            if cell or k == 0:
                hint = "; leave it empty where nobody rated" if k else "; expected seconds"
                rows[i, k] = parse_number(path, place, cell, hint)
        if not rows[i, 0] > before:
            raise InputError(
                path,
                place,
                f"time {rows[i, 0]:g} s is not later than {before:g} s in the line before (rows "
                "must be in the order of time)",
            )
        before = rows[i, 0]
        for value in rows[i, 1:]:
            if not (abs(value) <= 1 or value == NOT_ANNOTATED):
                raise InputError(
                    path, place, f"{value:g} is outside [-1, 1] (and not -5, not annotated)"
                )
    return rows, fixes


_COLUMNS = ("time_s", "valence", "arousal")
_OTHERS = ((";", "semicolons"), ("\t", "tabs"))


def _challenge_grid(root: Path, video: corpus.Video, fps: float | int | None) -> Grid:
    grid = Grid(video.name, video.stem, video.split)

    def problem(severity: str, path: Path, message: str) -> None:
        grid.problems.append(Problem(severity, relative(path, root), "", message, video.name))

    try:
        annotation = read_annotation(video.annotation) if video.annotation else None
        info = probe(video.media) if video.media else None
    except InputError as error:
        grid.problems.append(from_error(error, root, video.name))
        return grid
    media_s = None if info is None else info.times_s
    if info is not None and video.media is not None:
        grid.problems += from_fixes(info.fixes, video.media, root, video.name)
    if annotation is not None and video.annotation is not None:
        grid.problems += from_fixes(annotation.fixes, video.annotation, root, video.name)
    count = len(annotation.values) if annotation else video.listed_frames
    path = video.annotation or video.media or root / corpus.ANNOTATIONS
    if media_s is None:
        if fps is None:
            problem(UNUSABLE, path, "no video file, so frame times are not known; --fps gives them")
            return grid
        if count == 0:
            problem(UNUSABLE, path, "neither annotation nor video tells its number of frames")
            return grid
        media_s = np.arange(count) / float(fps)
    count = count or len(media_s)
    beyond = count - len(media_s)
    if beyond > max(FOREIGN_FRAMES, FOREIGN_SHARE * count):
        what = f"{count} frames are annotated, the video has {len(media_s)}"
        problem(UNUSABLE, path, f"{what}: too few to be the same recording")
        return grid
    if beyond > 0:
        step = median_interval(media_s)
        media_s = np.concatenate([media_s, media_s[-1] + step * np.arange(1, beyond + 1)])
        problem(REPAIRED, path, f"the last {beyond} frames continue at the median interval")
    elif beyond < 0:
        problem(REPAIRED, path, f"the last {-beyond} frames of the video are not annotated: unused")
    grid.time_s = media_s[:count]
    for name, own in video.extra:
        try:
            target, values = read_extra(own, name)
            grid.extra[target] = fitted(values, count)
        except InputError as error:
            problem(REPAIRED, own, f"{error.place}: {error.message}: {name} is masked")
    if annotation is None:
        grid.targets, grid.target_mask = np.zeros((count, 2), np.float32), np.zeros(count, bool)
    else:
        grid.targets, grid.target_mask = annotation.values.astype(np.float32), annotation.valid
    return grid
