"""Ratings in the files of other corpora: `maven-jax prepare --features DIR --labels PATH`.

| corpus | files below PATH |
|---|---|
| MuSe | `{valence,arousal}/<video>.csv`: `timestamp,value,segment_id`, in milliseconds |
| AVEC, SEWA | `<video>.csv`: `name;timestamp;arousal;valence;liking`; splits by name (`Train_…`) |
| RECOLA | `{valence,arousal}/<video>.csv`: `time;FM1;FM2;…`, a column for each rater |
| others | `<video>.csv` with a time and columns `valence`, `arousal` (or `valence_1`, … by rater) |
| OMG | `omg_*Videos.csv`: a row per clip, which is called `<video>_<utterance>` |
| EmoBank, MSP-Podcast, … | a row per clip: its name, (its split,) valence and arousal |

Dominance, liking and trustworthiness, where a column or a folder has them, are kept as extra
targets. A split is told by a column, by `--splits`, by a `partition.csv` nearby, by a folder or
file that is called like it, or by the beginning of the video's name. Ratings are brought from
`--scale` to [-1, 1].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from data_prep.corpus.extra_targets import EXTRA_DIMENSIONS, dimension_target
from data_prep.corpus.layout import SPLITS, name_fault
from data_prep.imports.columns import TIME_UNITS
from data_prep.imports.grid import Grid
from data_prep.imports.raters import RATED, LabelOptions, combined
from data_prep.imports.tables import TABLES, TextTable, read_table
from maven_jax.errors import UserError
from maven_jax.media.annotations import NOT_ANNOTATED
from maven_jax.media.problems import (
    NOTE,
    UNUSABLE,
    InputError,
    Problem,
    from_error,
    printable,
    relative,
)
from maven_jax.types import DIMENSIONS

_NAMES = {
    "valence": ("valence", "val", "v", "emoval", "pleasure", "valence_mean"),
    "arousal": ("arousal", "aro", "a", "emoact", "activation", "arousal_mean"),
    "dominance": ("dominance", "dom", "d", "emodom", "dominance_mean"),
    "liking": ("liking",),
    "trustworthiness": ("trustworthiness",),
}
_CLIPS = ("video", "clip", "id", "filename", "file", "name", "wav", "utterance_id")
_SPLIT_COLUMNS = ("split", "partition", "proposal", "split_set", "set", "fold")
# How a word in lower case begins that names a split.
_SPLIT_WORDS = {
    "train": re.compile(r"train(?:ing)?(?![a-z])"),
    "validation": re.compile(r"(?:dev(?:el(?:opment)?)?|val(?:id(?:ation)?)?)(?![a-z])"),
    "test": re.compile(r"test(?:ing)?(?![a-z])"),
}
# About a row, and no rating.
_ABOUT = (*TIME_UNITS, "segment_id", "name", "frame", "index", "", "unnamed: 0")
# MuSe's table of splits.
PARTITION = "partition.csv"
_MAX_BYTES = 256 << 20
# Ratings are rarer than this only if their times are in another unit.
_MOST_STEP_S = 10.0


class _Everywhere(dict[str, str]):
    """One split for whatever video."""

    def __init__(self, split: str):
        self._split = split

    def get(self, key: object, default: object = None) -> str:  # type: ignore[override]
        return self._split


@dataclass(frozen=True)
class LabelTrack:
    """The ratings of one video.

    Attributes:
        video: its name.
        split: train, validation or test.
        path: a file that they come from.
        time_s: (n,) increasing; None for one rating of the whole clip.
        values: (n, 2) valence and arousal in [-1, 1], NaN where not rated.
        extra: of `EXTRA_DIMENSIONS` -> (n,) as `values`.
    """

    video: str
    split: str
    path: Path
    time_s: Float[np.ndarray, "n"] | None
    values: Float[np.ndarray, "n 2"]
    extra: dict[str, Float[np.ndarray, "n"]] = field(default_factory=dict)


def _split_of(text: str) -> str | None:
    """The split that a word begins with."""
    return next((s for s, p in _SPLIT_WORDS.items() if p.match(text.strip().lower())), None)


class _NoRatings(InputError):
    """A table that is something else."""


@dataclass
class _Labels:
    """Ratings under way.

    Attributes:
        root: the folder that was given, or that of the file.
        parts: video -> dimension -> times and values, not yet joined.
    """

    root: Path
    options: LabelOptions
    splits: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    parts: dict[str, dict[str, tuple[Path, np.ndarray, np.ndarray]]] = field(default_factory=dict)
    clips: dict[str, LabelTrack] = field(default_factory=dict)

    def unusable(self, path: Path, video: str, message: str) -> None:
        where = relative(path, self.root)
        self.problems.append(Problem(UNUSABLE, where, "", message, printable(video)))

    def read(self, path: Path) -> None:
        """Reads one file."""
        table = read_table(path, _MAX_BYTES, "ratings")
        lower = [name.lower() for name in table.names]
        columns = {d: _of_dimension(lower, d) for d in RATED}
        time = next((lower.index(n) for n in TIME_UNITS if n in lower), None)
        if time is None:
            self._read_clips(table, lower, columns)
            return
        if not any(columns.values()):
            folders = [part.lower() for part in path.relative_to(self.root).parts[:-1]]
            folders += [self.root.name.lower()]
            dimension = next((d for d in RATED if d in folders), None)
            if dimension is None:
                names = printable(", ".join(table.names), 80)
                message = f"no column valence or arousal in {names}, nor a folder of that name"
                raise _NoRatings(path, "line 1", message)
            columns[dimension] = [i for i, n in enumerate(lower) if n not in _ABOUT]
        time_s = table.seconds(time, self._unit(table, lower, time)) - self.options.delay_s
        if not (np.diff(time_s) > 0).all() or not np.isfinite(time_s).all():
            bad = ~np.isfinite(time_s) | ~(np.diff(time_s, prepend=-np.inf) > 0)
            line = table.lines[int(bad.argmax())]
            raise InputError(path, f"line {line}", "the time is not later than in the line before")
        for dimension, own in columns.items():
            if own:
                parts = self.parts.setdefault(path.stem, {})
                if dimension in parts:
                    other = relative(parts[dimension][0], self.root)
                    raise InputError(path, "", f"{dimension} of this video is in {other} too")
                ratings = self._extra(table, dimension, own)
                if ratings is not None:
                    parts[dimension] = (path, time_s, ratings)

    def _extra(self, table: TextTable, dimension: str, columns: list[int]) -> np.ndarray | None:
        """As `_scaled`; None, and a note, for faulty ratings of an extra dimension."""
        try:
            return self._scaled(table, dimension, columns)
        except InputError as error:
            if dimension in DIMENSIONS:
                raise
            where = relative(table.path, self.root)
            message = f"{dimension} is left out: {error.message}"
            self.problems.append(Problem(NOTE, where, error.place, message))
            return None

    def _unit(self, table: TextTable, lower: list[str], time: int) -> str:
        unit = TIME_UNITS[lower[time]]
        if not unit and "segment_id" in lower:
            unit = "ms"  # MuSe
        unit = unit or self.options.unit or ""
        if not unit and len(table.rows) > 2:
            step = float(np.median(np.diff(table.seconds(time, "s"))))
            if step > _MOST_STEP_S:
                message = f"rows {step:g} s apart: are the times milliseconds (--time-unit ms)?"
                raise InputError(table.path, "", message)
        return unit or "s"

    def _scaled(self, table: TextTable, dimension: str, columns: list[int]) -> np.ndarray:
        """(n,) ratings in [-1, 1] of all raters together."""
        ratings = table.numbers(columns)
        low, high = self.options.scale.get(dimension, (-1.0, 1.0))
        outside = ~((ratings >= low) & (ratings <= high))
        ratings[outside & (ratings == NOT_ANNOTATED)] = np.nan
        outside &= np.isfinite(ratings)
        if outside.any():
            row, column = (int(k[0]) for k in np.nonzero(outside))
            of = "" if dimension in DIMENSIONS else f"{dimension}="
            value, cure = ratings[row, column], f"give --scale {of}LOW,HIGH"
            cure = cure if dimension not in self.options.scale else "is the --scale right?"
            message = f"{dimension} {value:g} is outside [{low:g}, {high:g}]; {cure}"
            raise InputError(table.path, f"line {table.lines[row]}", message)
        ratings = (ratings - (low + high) / 2) / ((high - low) / 2)
        return combined(ratings, self.options.raters)

    def _read_clips(
        self, table: TextTable, lower: list[str], columns: dict[str, list[int]]
    ) -> None:
        """A table of one rating per clip."""
        name = next((lower.index(n) for n in _CLIPS if n in lower), None)
        if name is None or not all(columns[d] for d in DIMENSIONS):
            names = printable(", ".join(table.names), 80)
            message = f"neither a time nor a clip's name, valence and arousal in {names}"
            raise _NoRatings(table.path, "line 1", message)
        split = next((lower.index(n) for n in _SPLIT_COLUMNS if n in lower), None)
        values = np.stack([self._scaled(table, d, columns[d]) for d in DIMENSIONS], 1)
        extra = {d: self._extra(table, d, columns[d]) for d in EXTRA_DIMENSIONS if columns[d]}
        of_file = _split_in(table.path.stem)
        for i, row in enumerate(table.rows):
            video = row[name].strip()
            if "utterance" in lower:  # OMG
                video = f"{video}_{row[lower.index('utterance')].strip()}"
            video = re.sub(r"\.(?:wav|mp4|avi|mov|mkv|npy|csv)$", "", video)
            own = self.splits.get(video) or (
                _split_of(row[split]) if split is not None else of_file
            )
            place = f"line {table.lines[i]}"
            fault = name_fault(video)
            if video in self.clips:
                fault = "the same clip again"
            elif not own:
                fault = _NO_SPLIT
            if fault:
                raise InputError(table.path, place, f"{printable(video)!r}: {fault}")
            more = {d: ratings[i : i + 1] for d, ratings in extra.items() if ratings is not None}
            row_values = values[i : i + 1]
            self.clips[video] = LabelTrack(video, own or "", table.path, None, row_values, more)

    def tracks(self) -> Iterator[LabelTrack]:
        """The videos with both dimensions."""
        for video, parts in self.parts.items():
            path = next(iter(parts.values()))[0]
            lacking = [d for d in DIMENSIONS if d not in parts]
            split = self.splits.get(video) or self._split_by_place(path)
            fault = name_fault(video) or (f"no {lacking[0]}" if lacking else "")
            if fault or split is None:
                self.unusable(path, video, fault or _NO_SPLIT)
                continue
            time_s, values = _joined(parts)
            inside = time_s >= 0
            if not inside.any():
                message = "not one row of both dimensions at a time from 0 on"
                self.unusable(path, video, message)
                continue
            extra = {d: _at(time_s[inside], *parts[d][1:]) for d in EXTRA_DIMENSIONS if d in parts}
            yield LabelTrack(video, split, path, time_s[inside], values[inside], extra)

    def _split_by_place(self, path: Path) -> str | None:
        folders = [_split_of(part) for part in path.relative_to(self.root).parts[:-1]]
        return next((s for s in folders if s), None) or _split_of(path.stem)


_NO_SPLIT = "no telling which split it is in; --splits FILE.csv with the columns video,split"


def _split_in(stem: str) -> str | None:
    """The split that a file's name speaks of: `omg_TrainVideos`."""
    words = re.findall(r"[A-Z]?[a-z]+", stem)
    return next((s for s in map(_split_of, words) if s), None)


def _of_dimension(lower: list[str], dimension: str) -> list[int]:
    """The columns of a dimension: one, or one of each rater."""
    exact = [lower.index(n) for n in _NAMES[dimension] if n in lower]
    by_rater = re.compile(rf"{dimension}[ _.-]?(?!std|sd|var|mean|count|n$)\w+")
    return exact[:1] or [i for i, n in enumerate(lower) if by_rater.fullmatch(n)]


def _joined(
    parts: Mapping[str, tuple[Path, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Times that both dimensions have, within a microsecond, and the values there."""
    (_, v_s, valence), (_, a_s, arousal) = (parts[d] for d in DIMENSIONS)
    _, v, a = np.intersect1d(np.round(v_s * 1e6), np.round(a_s * 1e6), return_indices=True)
    return v_s[v], np.stack([valence[v], arousal[a]], 1)


def _at(time_s: np.ndarray, own_s: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at times, within a microsecond; NaN at others."""
    _, to, of = np.intersect1d(np.round(time_s * 1e6), np.round(own_s * 1e6), return_indices=True)
    placed = np.full(len(time_s), np.nan)
    placed[to] = values[of]
    return placed


def _read_splits(path: Path) -> dict[str, str]:
    table = read_table(path, _MAX_BYTES, "splits of videos")
    lower = [name.lower() for name in table.names]
    name = next((lower.index(n) for n in _CLIPS if n in lower), None)
    split = next((lower.index(n) for n in _SPLIT_COLUMNS if n in lower), None)
    if name is None or split is None:
        names = printable(", ".join(table.names), 80)
        raise InputError(path, "line 1", f"expected the columns video,split; found {names}")
    splits = {}
    for line, row in zip(table.lines, table.rows):
        own = _split_of(row[split])
        if own is None:
            message = f"{printable(row[split], 40)!r} is none of {', '.join(SPLITS)}"
            raise InputError(path, f"line {line}", message)
        splits[row[name].strip()] = own
    return splits


def _splits(root: Path, given: Path | str | None) -> Mapping[str, str]:
    if str(given) in SPLITS:
        return _Everywhere(str(given))
    if given is not None:
        return _read_splits(Path(given))
    nearby = [f / sub for f in (root, root.parent, root.parent.parent) for sub in ("", "metadata")]
    files = [folder / PARTITION for folder in nearby]
    return next((_read_splits(file) for file in files if file.is_file()), {})


def read_labels(path: Path, options: LabelOptions) -> tuple[list[LabelTrack], list[Problem]]:
    """The rated videos by split and name, and what is wrong with others.

    Args:
        path: a table of clips, or a folder of such tables or of tracks.
        options: how they are read.

    Raises:
        UserError: nothing is there, or a table of clips or of splits is faulty.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder of ratings")
    root = path if path.is_dir() else path.parent
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in TABLES)
    files = [p for p in files if p.name[0] != "." and p.name != PARTITION and p.is_file()]
    labels = _Labels(root, options, _splits(root, options.splits))
    for file in files if path.is_dir() else [path]:
        try:
            labels.read(file)
        except InputError as error:
            if not path.is_dir():
                raise
            severity = NOTE if isinstance(error, _NoRatings) else UNUSABLE
            labels.problems.append(from_error(error, root, printable(file.stem), severity))
    tracks = [*labels.clips.values(), *labels.tracks()]
    if not tracks:
        why = str(labels.problems[0]) if labels.problems else "no .csv file"
        raise UserError(f"{path}: not one usable rating: {why}")
    return sorted(tracks, key=lambda t: (SPLITS.index(t.split), t.video)), labels.problems


def label_grids(path: Path, options: LabelOptions) -> tuple[list[Grid], list[Problem]]:
    """As `read_labels`: a frame where each rating is."""
    tracks, problems = read_labels(path, options)
    grids = []
    for track in tracks:
        rated = np.asarray(np.isfinite(track.values).all(axis=1))
        targets = np.where(rated[:, None], track.values, 0).astype(np.float32)
        clip = track.time_s is None
        time_s = np.zeros(1) if track.time_s is None else track.time_s
        extra = {
            dimension_target(name): ratings[:, None].astype(np.float32)
            for name, ratings in track.extra.items()
        }
        names = (track.video, track.video, track.split)
        grids.append(Grid(*names, time_s, targets, rated, whole_clip=clip, extra=extra))
    return grids, problems
