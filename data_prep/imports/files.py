"""Feature files made elsewhere, and their values at the times of a video's frames.

    DIR/<modality>/<video>.npy     (T, c) numbers; row i is frame i, or lies at i / rate
    DIR/<modality>/<video>.csv     a header with `time_s` and one column for each feature
    DIR/<modality>/rate.txt        rows per second of the .npy files, if it is not the frame rate

Rows with NaN or infinity were not observed, nor were those whose `success` is 0. Columns that
describe a row of a face tracker (`BOOKKEEPING`) are no features. Features are told by their names:
they may stand in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.imports.grid import parse_number
from maven_jax.errors import UserError
from maven_jax.media.problems import InputError, check_file, printable, read_text
from maven_jax.store.plan import check_modality_name

SUFFIXES = (".npy", ".csv")
RATE_FILE = "rate.txt"
TIME_COLUMNS = ("time_s", "time", "timestamp", "seconds")
# What OpenFace says about a row beside its features.
BOOKKEEPING = ("frame", "face_id", "confidence", "success")
# Rows that begin or end further from a video's first or last frame, in share of its length and in
# seconds, may be of another recording or have another rate.
EXTENT_SHARE, EXTENT_S = 0.2, 1.0
# A .npy with so many rows more or fewer than frames is still paired with them by index.
TOLERATED_FRAMES, TOLERATED_SHARE = 5, 0.01
# Between rows further apart than this many usual steps nothing is interpolated.
GAP_STEPS = 3.0
# A frame nearer to a row than this share of a step lies on it: times are sums of rounded numbers.
_ON_ROW = 1e-6
_MAX_CSV_BYTES = 1 << 30
_MAX_HEADER_CHARS = 1 << 24


@dataclass
class FeatureRows:
    """The rows of one file.

    Attributes:
        values: (T, c), on disk for .npy files.
        time_s: (T,) increasing, or None if row i belongs to frame i.
    """

    values: np.ndarray
    time_s: np.ndarray | None

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
        return self._interpolate(frame_time_s)

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
        first_s, last_s = self.time_s[0], self.time_s[-1]
        begin_s, end_s = frame_time_s[0], frame_time_s[-1]
        what = f"rows from {first_s:.2f} to {last_s:.2f} s, frames from {begin_s:.2f} to "
        what += f"{end_s:.2f} s"
        if last_s < begin_s or first_s > end_s:
            raise InputError(path, "", f"{what}: not of the same recording")
        tolerance_s = max(EXTENT_S, EXTENT_SHARE * (end_s - begin_s))
        if abs(last_s - end_s) > tolerance_s or first_s > begin_s + tolerance_s:
            return f"{what}: is their rate right, and are they of this video?"
        return ""

    def _interpolate(self, frame_time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time_s = self.time_s
        assert time_s is not None
        if len(time_s) == 1:
            mask = np.abs(frame_time_s - time_s[0]) < _ON_ROW
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
        for path in sorted(sub.iterdir()):
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if path.stem in files:
                raise UserError(f"{path}: the same features are in {files[path.stem].name} too")
            files[path.stem] = path
        if not files:
            raise UserError(f"{sub}: no .npy or .csv file; remove the folder, or fill it")
    if not modalities:
        raise UserError(f"{folder}: no folder in it; expected DIR/<modality>/<video>.npy or .csv")
    return modalities


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
class CsvHeader:
    """The columns of a .csv file.

    Attributes:
        names: of all columns.
        time: which of them is the time.
        features: names of the features, in the file's order.
    """

    names: tuple[str, ...]
    time: int
    features: tuple[str, ...]

    def places(self, features: Sequence[str]) -> list[int]:
        """Columns of these features, which are the file's own in any order."""
        own = [i for i, n in enumerate(self.names) if i != self.time and n not in BOOKKEEPING]
        if tuple(features) == self.features:  # names may repeat
            return own
        return [self.names.index(name) for name in features]

    def fits(self, features: Sequence[str]) -> bool:
        """Whether the file has these features, in this order or told by their names in another."""
        if tuple(features) == self.features:
            return True
        unique = len(set(self.features)) == len(self.features)
        return unique and sorted(features) == sorted(self.features)


def read_header(path: Path) -> CsvHeader:
    """The columns of a .csv file; reads one line.

    Raises:
        InputError: no header, no time, or no features.
    """
    check_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            line = file.readline(_MAX_HEADER_CHARS)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, "line 1", f"cannot be read: {error}") from None
    if len(line) == _MAX_HEADER_CHARS:
        raise InputError(path, "line 1", "too long for a header")
    names = tuple(name.strip().strip('"') for name in line.split(","))
    lower = [name.lower() for name in names]
    if "time_s" in lower:
        time = lower.index("time_s")
    elif lower[0] in TIME_COLUMNS:
        time = 0
    else:
        what = f"no column time_s (seconds) in the header {printable(line.strip(), 60)!r}"
        raise InputError(path, "line 1", what)
    features = tuple(n for i, n in enumerate(names) if i != time and n not in BOOKKEEPING)
    if not features:
        raise InputError(path, "line 1", "no feature beside the time")
    return CsvHeader(names, time, features)


def read_csv(path: Path, features: Sequence[str]) -> FeatureRows:
    """Reads a .csv file whole.

    Args:
        path: the file.
        features: the names of its features, in the order of the rows' values.

    Raises:
        InputError: names the line.
    """
    header = read_header(path)
    names = header.names
    text, _ = read_text(path, _MAX_CSV_BYTES, "features")
    lines = text.rstrip().split("\n")[1:]
    if not lines:
        raise InputError(path, "", "no rows behind the header")
    values = np.empty((len(lines), len(names)))
    for i, line in enumerate(lines):
        cells = line.split(",")
        if len(cells) != len(names):
            place = f"line {i + 2}"
            raise InputError(path, place, f"{len(cells)} columns instead of {len(names)}")
        try:
            values[i] = [float(cell) if cell.strip() else np.nan for cell in cells]
        except ValueError as error:
            raise InputError(path, f"line {i + 2}", f"not numbers: {str(error)[:200]}") from None
    time_s = values[:, header.time]
    bad = ~np.isfinite(time_s) | ~(np.diff(time_s, prepend=-np.inf) > 0)
    if bad.any():
        i = int(bad.argmax())
        what = f"time {time_s[i]:g} s is not later than in the line before"
        if i and time_s[i] == time_s[i - 1]:
            what += "; of several rows of a time (of several faces?) keep one"
        raise InputError(path, f"line {i + 2}", what)
    rows = values[:, header.places(features)]
    if "success" in names:
        rows[values[:, names.index("success")] == 0] = np.nan
    return FeatureRows(rows, time_s)
