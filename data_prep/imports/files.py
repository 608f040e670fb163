"""Feature files made elsewhere, and their values at the times of a video's frames.

    DIR/<modality>/<video>.npy     (T, c) numbers; row i is frame i, or lies at i / rate
    DIR/<modality>/<video>.csv     a header with one column for each feature, and mostly a time;
                                   or such a table in another of `containers.CONTAINERS`
    DIR/<modality>/rate.txt        rows per second of files without times, if not the frame rate

`data_prep.imports.columns` says what is a time and what is a feature. Features are told by their
names: they may stand in any order. Rows with NaN or infinity, and those that a tracker was not
sure of, were not observed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.imports.columns import Columns, describe
from data_prep.imports.containers import CONTAINERS, PICKLES, ArrayTable, read_any_table
from data_prep.imports.grid import parse_number
from data_prep.imports.tables import TABLES, TextTable, checked_unit
from maven_jax.errors import UserError, listing
from maven_jax.media.container import MAX_FRAMES
from maven_jax.media.problems import InputError, check_file, printable, read_text
from maven_jax.progress import say
from maven_jax.store.plan import check_modality_name

SUFFIXES = (".npy", *TABLES, *CONTAINERS)
_READ = ", ".join(SUFFIXES)
_FROM_PICKLE = (
    "a pickle can run code when it is opened, so none is: if you trust it, "
    "pandas.read_pickle(FILE).to_parquet(NAME) writes what is read"
)
RATE_FILE = "rate.txt"
# Rows that begin or end further from a video's first or last frame, in share of its length and in
# seconds, may be of another recording or have another rate.
EXTENT_SHARE, EXTENT_S = 0.2, 1.0
# Times so many times longer than the video are milliseconds, within this factor.
_MILLISECONDS, _ABOUT = 1000.0, 1.2
# A file with so many rows more or fewer than frames is still paired with them by index.
TOLERATED_FRAMES, TOLERATED_SHARE = 5, 0.01
# Between rows further apart than this many usual steps nothing is interpolated.
GAP_STEPS = 3.0
# A frame nearer to a row than this share of a step lies on it: times are sums of rounded numbers.
_ON_ROW = 1e-6
_MAX_CSV_BYTES = 1 << 30
# Whose rows count where a time has several: the most confident one's, or a face by its name.
SUREST = "best"


@dataclass
class FeatureRows:
    """The rows of one file.

    Attributes:
        values: (T, c), on disk for .npy files.
        time_s: (T,) increasing, or None if row i belongs to frame i.
        in_frames: `time_s` are numbers of frames, from 0.
        end_s: where one row holds for a stretch from its time on, the end of that.
    """

    values: np.ndarray
    time_s: np.ndarray | None
    in_frames: bool = False
    end_s: float | None = None

    def at(self, frames: slice, frame_time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, c) of some frames of a video, and mask (n,) of those that have any.

        Rows that are not finite are returned as they are, unmasked.

        Args:
            frames: which frames.
            frame_time_s: (n,) their times.
        """
        if self.time_s is None:
            mask = np.arange(frames.start, frames.stop) < len(self.values)
            dtype = np.result_type(self.values.dtype, np.float32)
            features = np.zeros((len(mask), self.values.shape[1]), dtype)
            features[mask] = self.values[frames.start : min(frames.stop, len(self.values))]
            return features, mask
        at = np.arange(frames.start, frames.stop, dtype=float) if self.in_frames else frame_time_s
        return self._interpolate(at)

    def compare_extent(self, path: Path, frame_time_s: np.ndarray) -> str:
        """A note on rows whose times do not match those of the frames, "" if they do.

        Args:
            path: their file.
            frame_time_s: (n,) times of all frames.

        Raises:
            InputError: no frame lies within the rows' times.
        """
        if self.time_s is None:
            return ""
        frames = np.arange(len(frame_time_s)) if self.in_frames else frame_time_s
        first, last = self.time_s[0], self.time_s[-1] if self.end_s is None else self.end_s
        begin, end = frames[0], frames[-1]
        if self.in_frames:
            what = f"rows of frames {first:.0f} to {last:.0f} (from 0), {end + 1:.0f} frames"
        else:
            what = f"rows from {first:.2f} to {last:.2f} s, frames from {begin:.2f} to {end:.2f} s"
        ratio = last / end if end > 0 else 0.0
        if not self.in_frames and _MILLISECONDS / _ABOUT < ratio < _MILLISECONDS * _ABOUT:
            cure = f"--time-unit {path.parent.name}=ms"
            raise InputError(path, "", f"{what}: are the rows' times milliseconds ({cure})?")
        if last < begin or first > end:
            raise InputError(path, "", f"{what}: not of the same recording")
        tolerance = max(EXTENT_S, EXTENT_SHARE * (end - begin))
        if self.in_frames:
            tolerance = max(tolerance, TOLERATED_FRAMES)
        if abs(last - end) > tolerance or first > begin + tolerance:
            return f"{what}: is their rate right, and are they of this video?"
        return ""

    def _interpolate(self, frame_time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time_s = self.time_s
        assert time_s is not None
        if len(time_s) == 1:
            end_s = time_s[0] if self.end_s is None else self.end_s
            mask = (frame_time_s > time_s[0] - _ON_ROW) & (frame_time_s < end_s + _ON_ROW)
            return np.repeat(np.asarray(self.values, np.float64), len(mask), axis=0), mask
        left = np.clip(np.searchsorted(time_s, frame_time_s, "right") - 1, 0, len(time_s) - 2)
        step = time_s[left + 1] - time_s[left]
        weight = (frame_time_s - time_s[left]) / step
        weight = np.where(np.abs(weight) < _ON_ROW, 0, weight)
        weight = np.where(np.abs(weight - 1) < _ON_ROW, 1, weight)
        gap = (step > GAP_STEPS * np.median(np.diff(time_s))) & (weight > 0) & (weight < 1)
        mask = (weight >= 0) & (weight <= 1) & ~gap
        # A frame on a row takes nothing from the next row, which may hold NaN.
        before = np.where((weight < 1)[:, None], self.values[left], 0).astype(np.float64)
        after = np.where((weight > 0)[:, None], self.values[left + 1], 0).astype(np.float64)
        with np.errstate(invalid="ignore"):
            return before * (1 - weight[:, None]) + after * weight[:, None], mask


def find_features(folder: Path) -> dict[str, dict[str, Path]]:
    """Modality -> video -> file, by name.

    Raises:
        UserError: no folder, no modality in it, a modality without files, a name that cannot be
            used, or two files of one video.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected DIR/<modality>/<video>.npy or .csv")
    modalities: dict[str, dict[str, Path]] = {}
    for sub in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        check_modality_name(sub.name, f"{folder}: the folder of modality")
        files = modalities[sub.name] = {}
        others: Counter[str] = Counter()
        for path in sorted(sub.iterdir()):
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                others[path.suffix] += path.name != RATE_FILE and path.name[0] != "."
                continue
            if path.stem in files:
                raise UserError(f"{path}: the same features are in {files[path.stem].name} too")
            files[path.stem] = path
        if not files:
            there = f" but {_counted(others)}" if +others else ""
            cure = _FROM_PICKLE if others.keys() & set(PICKLES) else "remove the folder, or fill it"
            raise UserError(f"{sub}: no file of {_READ}{there}; {cure}")
        if +others:
            say(f"note: {sub}: {_counted(others)} are not read; {_READ} are")
    if not modalities:
        raise UserError(f"{folder}: no folder in it; expected DIR/<modality>/<video>.npy or .csv")
    return modalities


def _counted(suffixes: Counter[str]) -> str:
    """`3 .pkl and 1 .mat files`."""
    return " and ".join(f"{n} {printable(suffix) or 'other'}" for suffix, n in suffixes.items()) + (
        " files" if suffixes.total() > 1 else " file"
    )


def find_rates(folder: Path, modalities: list[str], rates: dict[str, float]) -> dict[str, float]:
    """Rows per second of the modalities with a rate of their own, from `rates` or `rate.txt`.

    Raises:
        UserError: a rate is not a positive number, or its modality does not exist.
    """
    for name in rates:
        if name not in modalities:
            raise UserError(
                f"--rate {name}: no such modality; {folder} has {', '.join(modalities)}"
            )
    rates_hz = {}
    for name in modalities:
        file = folder / name / RATE_FILE
        if name in rates:
            where, rate = f"--rate {name}", rates[name]
        elif file.exists():
            where, rate = str(file), parse_number(file, "", read_text(file, 4096, "a rate")[0])
        else:
            continue
        if not (np.isfinite(rate) and rate > 0):
            raise UserError(f"{where}: {rate:g} is not a rate in rows per second")
        rates_hz[name] = float(rate)
    return rates_hz


def open_npy(path: Path) -> np.ndarray:
    """(T, c) array that stays on disk.

    Raises:
        InputError: not a .npy file of T rows of numbers.
    """
    check_file(path)
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the header is evaluated as Python, and fails in many ways
        reason = printable(" ".join(str(error).split()), 120)
        raise InputError(path, "", f"not a NumPy array of numbers: {reason}") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        kind = getattr(values, "dtype", type(values).__name__)
        raise InputError(path, "", f"holds {kind}, not an array of numbers")
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(path, "", f"expected shape (rows, features), found {values.shape}")
    return values


@dataclass(frozen=True)
class Reading:
    """How the tables of a modality are read.

    Attributes:
        rate: rows per second where nothing tells times, None for a row per frame.
        unit: of times whose column does not say it; of `UNITS_S`.
        face: `SUREST` or a face's name, where a time has rows of several; None refuses those.
        columns: a regular expression that a feature's whole name fits, None for all.
    """

    rate: float | None = None
    unit: str = "s"
    face: str | None = None
    columns: str | None = None


@dataclass(frozen=True)
class FeatureTable:
    """A table of features.

    Attributes:
        columns: what they are.
        rows: the features in the file's order, NaN where not observed.
    """

    columns: Columns
    rows: FeatureRows

    def ordered(self, features: tuple[str, ...]) -> FeatureRows:
        """The rows with the features in this order."""
        if features == self.columns.feature_names:
            return self.rows
        index = [self.columns.feature_names.index(name) for name in features]
        return FeatureRows(
            self.rows.values[:, index], self.rows.time_s, self.rows.in_frames, self.rows.end_s
        )


def read_features(path: Path, reading: Reading) -> FeatureTable:
    """Reads a table of features whole.

    Raises:
        InputError: names the line.
    """
    table = read_any_table(path, _MAX_CSV_BYTES, "features")
    columns = describe(path, table.names, reading.columns)
    values = table.numbers(list(columns.features))
    if columns.seen is not None:
        seen = table.numbers([columns.seen])[:, 0]
        values[~(seen > 0)] = np.nan  # NaN too: nothing was there
    time, in_frames = _positions(table, columns, reading)
    kept = _chosen(table, columns, time, reading.face)
    if time is None:
        return FeatureTable(columns, FeatureRows(values[kept], None))
    lines = [line for line, keep in zip(table.lines, kept) if keep]
    _check_rising(path, time[kept], lines, "frame" if in_frames else "time", columns)
    end_s = None
    if columns.end is not None and len(lines) == 1:
        end_s = float(table.seconds(columns.end, columns.unit or reading.unit)[kept][0])
        end_s = end_s if np.isfinite(end_s) else np.inf
    return FeatureTable(columns, FeatureRows(values[kept], time[kept], in_frames, end_s))


def _positions(
    table: TextTable | ArrayTable, columns: Columns, reading: Reading
) -> tuple[np.ndarray | None, bool]:
    """When each row is, in seconds or (True) in frames; None where row i is frame i."""
    if columns.time is not None:
        unit = columns.unit or reading.unit
        time_s = table.seconds(columns.time, unit)
        if columns.end is not None and len(time_s) > 1:
            time_s = (time_s + table.seconds(columns.end, unit)) / 2
        return time_s, False
    if columns.frame is None:
        n = len(table.rows)
        return (None if reading.rate is None else np.arange(n) / reading.rate), False
    number = table.numbers([columns.frame])[:, 0]
    first = columns.first_frame
    if first is None:
        first = number.min() if number.min() in (0, 1) else np.nan
        if np.isnan(first):
            message = f"frames from {number.min():g} on: are they counted from 0 or from 1?"
            cure = "name the column time_s and give seconds"
            raise InputError(table.path, f"line {table.lines[0]}", f"{message} ({cure})")
    number = number - first
    if not ((number >= 0) & (number < MAX_FRAMES)).all():
        i = int((~((number >= 0) & (number < MAX_FRAMES))).argmax())
        message = f"{number[i] + first:g} is no number of a frame"
        raise InputError(table.path, f"line {table.lines[i]}", message)
    return (number, True) if reading.rate is None else (number / reading.rate, False)


def _chosen(
    table: TextTable | ArrayTable, columns: Columns, time: np.ndarray | None, face: str | None
) -> np.ndarray:
    """Which rows are of the face that counts; all of them without a choice."""
    every = np.ones(len(table.rows), bool)
    if face is None:
        return every
    if face != SUREST:
        if columns.face is None:
            names = printable(", ".join(table.names), 80)
            raise InputError(table.path, "line 1", f"--face {face}: no column of faces in {names}")
        own = np.array([cell.strip() == face for cell in table.column(columns.face)])
        if not own.any():
            faces = listing(sorted({printable(c) for c in table.column(columns.face)}), 5)
            raise InputError(table.path, "", f"--face {face}: no such face; it has {faces}")
        return own
    if columns.confidence is None or time is None:
        message = f"--face {SUREST}: no column of confidence and times"
        raise InputError(table.path, "line 1", message)
    sure = np.nan_to_num(table.numbers([columns.confidence])[:, 0], nan=-1)
    order = np.lexsort((-sure, time))
    first = np.r_[True, np.diff(time[order]) > 0]
    every[:] = False
    every[order[first]] = True
    return every


def _check_rising(
    path: Path, time: np.ndarray, lines: list[int], what: str, columns: Columns
) -> None:
    bad = ~np.isfinite(time) | ~(np.diff(time, prepend=-np.inf) > 0)
    if not bad.any():
        return
    i, unit = int(bad.argmax()), " s" if what == "time" else ""
    message = f"{what} {time[i]:g}{unit} is not later than in the line before"
    if i and time[i] == time[i - 1]:
        cure = f"--face {path.parent.name}={SUREST if columns.confidence is not None else 'NAME'}"
        message += f"; of several rows of a {what} (of several faces?) keep one ({cure})"
    raise InputError(path, f"line {lines[i]}", message)


def readings_of(
    columns: Mapping[str, str], faces: Mapping[str, str], units: Mapping[str, str]
) -> dict[str, Reading]:
    """Modality -> how its tables are read, from what a user says of each.

    Raises:
        UserError: no unit of time, or no regular expression.
    """
    readings: dict[str, Reading] = {}
    for name in (*columns, *faces, *units):
        unit = checked_unit(units.get(name, "s"))
        pattern = columns.get(name)
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise UserError(f"--columns {name}={pattern}: no regular expression: {error}") from None
        readings[name] = Reading(unit=unit, face=faces.get(name), columns=pattern)
    return readings
