"""What the columns of a feature table are: times, a tracker's words about a row, features.

| program | told by | time | not observed |
|---|---|---|---|
| OpenFace | `frame`, (`face_id`,) `timestamp`, `confidence`, `success` | seconds | `success` 0 |
| OpenFace on pictures | `face`, `confidence`, no time | a row per frame | `confidence` 0 |
| openSMILE | `name;frameTime;…`; in Python `file,start,end,…` | seconds; the middle | |
| py-feat | `FaceScore`, `frame` from 0 | none: frame numbers | `FaceScore` empty |
| MediaPipe, by hand | `timestamp_ms`, `frame` | as the name says | |
| MuSe, AVEC | `timestamp,segment_id,…` in ms; `name;timestamp;…` in seconds | | |
| pandas | a first column without a name | | |

A column of `BOOKKEEPING` is no feature, whoever wrote it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from maven_jax.media.problems import InputError, printable

# Lower-case name of a column of times -> its unit, the surest first. Where two are there, the first
# counts.
TIME_UNITS = {
    "time_s": "s",
    "timestamp_s": "s",
    "time_sec": "s",
    "time [s]": "s",
    "timestamp_ms": "ms",
    "time_ms": "ms",
    "time [ms]": "ms",
    "ms": "ms",
    "jstime": "ms",
    "timestamp_us": "us",
    "frametime": "s",
    "seconds": "s",
    "timestamp": "",
    "time": "",
}
_FRAMES = ("frame", "frame_id", "frame_idx", "frame_index", "frame_number", "frame_num")
_FACES = ("face_id", "face", "face_idx", "face_index", "identity", "person_id", "track_id")
_CONFIDENCES = ("confidence", "facescore")
_SUCCESS = ("success",)
# About a row, and no features: numbers of rows and frames, whose face, how sure, which file.
BOOKKEEPING = frozenset(
    (
        *TIME_UNITS,
        *_FRAMES,
        *_FACES,
        *_CONFIDENCES,
        *_SUCCESS,
        *("", "unnamed: 0", "index", "level_0"),
        *("start", "end", "approx_time", "segment_id", "start_s", "end_s"),
        *("name", "file", "filename", "input", "video", "image", "img", "path"),
    )
)


@dataclass(frozen=True)
class Columns:
    """The columns of a feature table by what they are.

    Attributes:
        names: of all columns.
        features: which of them are features, in the file's order.
        time: the column of times, None without one.
        end: where `time` is the start of a stretch, the column of its end.
        unit: of the times; "" where nothing says so, which is taken for seconds.
        frame: the column of frame numbers, None without one.
        first_frame: the number of the first frame, None where the program is not known.
        face: the column that tells faces apart, None without one.
        seen: a column that is 0 or empty where the row was not observed, None without one.
        program: what wrote the file, "" if that is not known.
    """

    names: tuple[str, ...]
    features: tuple[int, ...]
    time: int | None = None
    end: int | None = None
    unit: str = ""
    frame: int | None = None
    first_frame: int | None = None
    face: int | None = None
    seen: int | None = None
    confidence: int | None = None
    program: str = ""

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.names[i] for i in self.features)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns that are neither features nor the time."""
        used = {*self.features, self.time}
        return tuple(n or "(no name)" for i, n in enumerate(self.names) if i not in used)

    def fits(self, features: tuple[str, ...]) -> bool:
        """Whether the file has these features, in this order or told by their names in another."""
        own = self.feature_names
        return features == own or (len(set(own)) == len(own) and sorted(features) == sorted(own))


def _first(lower: list[str], names: tuple[str, ...]) -> int | None:
    return next((lower.index(name) for name in names if name in lower), None)


def _program(lower: list[str]) -> str:
    names = set(lower)
    if {"confidence", "success"} <= names or {"face", "confidence"} <= names:
        return "OpenFace"
    if "facescore" in names:
        return "py-feat"
    if "frametime" in names or {"file", "start", "end"} <= names:
        return "openSMILE"
    return "MuSe" if {"timestamp", "segment_id"} <= names else ""


def describe(path: Path, names: tuple[str, ...], pattern: str | None = None) -> Columns:
    """What the columns are.

    Args:
        path: the file, for the message.
        names: in its header.
        pattern: a regular expression that the whole name of a feature matches; None for any.

    Raises:
        InputError: not one column is a feature.
    """
    lower = [name.lower() for name in names]
    program = _program(lower)
    time, end = _first(lower, tuple(TIME_UNITS)), None
    if time is None and "start" in lower and "end" in lower:
        time, end = lower.index("start"), lower.index("end")
    unit = "" if time is None else TIME_UNITS.get(lower[time], "s")
    if not unit and program:
        unit = "ms" if program == "MuSe" else "s"
    features = tuple(i for i, name in enumerate(lower) if name not in BOOKKEEPING)
    if not features:
        what = "no feature beside the time" if time is not None else "no column is a feature"
        raise InputError(path, "line 1", f"{what}: {printable(', '.join(names), 80)}")
    if pattern is not None:
        features = tuple(i for i in features if re.fullmatch(pattern, names[i]))
        if not features:
            raise InputError(path, "line 1", f"--columns {printable(pattern, 60)}: fits no feature")
    confidence = _first(lower, _CONFIDENCES)
    success = _first(lower, _SUCCESS)
    return Columns(
        names,
        features,
        time,
        end,
        unit,
        _first(lower, _FRAMES),
        {"OpenFace": 1, "py-feat": 0}.get(program),
        _first(lower, _FACES),
        confidence if success is None else success,
        confidence,
        program,
    )
