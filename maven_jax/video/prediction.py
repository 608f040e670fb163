"""The prediction of one face in one video, as CSV, JSON, pandas and text."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from maven_jax.errors import UserError, printable
from maven_jax.files import whole_file
from maven_jax.media.transcripts import Word
from maven_jax.types import AROUSAL, VALENCE
from maven_jax.video.extra_curves import ExtraCurves, spread, spread_in_words

__all__ = ["VideoPrediction", "Word"]

# Rows of the table made at a time: those of an hour would take hundreds of megabytes.
_ROWS = 10_000


@dataclasses.dataclass(frozen=True)
class VideoPrediction:
    """Valence and arousal of every picture of a video, and what they are based on.

    Attributes:
        name: of the media, without its folder.
        source: the media file or the folder of crops.
        track: "" or the face's ID, when several faces of a video are predicted.
        frame: (n,) number of the picture in the container, from 0.
        time_s: (n,) the container's timestamp of each picture, seconds from the container's start.
        va: (n, 2) raw valence and arousal in [-1, 1]; NaN where no modality was observed.
        smoothed: (n, 2) the same after smoothing; None without.
        face_found: (n,).
        face_confidence: (n,) of the detector, in [0, 1]; 0 where no face was found.
        boxes: (n, 4) x, y, width, height in pixels of the picture as it is shown (upright, square
            pixels); NaN where no face was found.
        observed: modality -> (n,) the frames in which it was observed.
        words: what was said, by start time.
        contributions: modality -> (n, 2) `va` minus what is predicted without that modality; NaN
            where it was missing or the only one. None if it was not asked for.
        label: "" or why the numbers mean nothing ("untrained weights") or, with `published` models,
            little; every output shows it.
        notes: what was missing, in sentences.
        facts: numbers about the run: duration_s, real_time_factor, peak_memory_mib, …
        calibrated: (n, 2) `va` after the calibration; None without.
        calibration: what it does and what it was tuned on, as `Calibration.to_json`; None without.
        published: of models that were not trained for this: modality, title, trained_on, licence,
            page and reliability of each.
        extra: name -> what is predicted beside valence and arousal; empty for most models.
    """

    name: str
    source: Path
    track: str
    frame: Int[np.ndarray, "n"]
    time_s: Float64[np.ndarray, "n"]
    va: Float32[np.ndarray, "n 2"]
    smoothed: Float32[np.ndarray, "n 2"] | None
    face_found: Bool[np.ndarray, "n"]
    face_confidence: Float32[np.ndarray, "n"]
    boxes: Float32[np.ndarray, "n 4"]
    observed: Mapping[str, Bool[np.ndarray, "n"]]
    words: tuple[Word, ...]
    contributions: Mapping[str, Float32[np.ndarray, "n 2"]] | None
    label: str
    notes: tuple[str, ...]
    facts: Mapping[str, float | int]
    calibrated: Float32[np.ndarray, "n 2"] | None = None
    calibration: Mapping[str, Any] | None = None
    published: tuple[Mapping[str, str], ...] = ()
    extra: Mapping[str, ExtraCurves] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def title(self) -> str:
        """`clip.mp4`, or `clip.mp4, face 2` when several faces are predicted."""
        return f"{self.name}, face {self.track}" if self.track else self.name

    @property
    def stem(self) -> str:
        """`clip`, or `clip_face2`: what the names of its files begin with."""
        stem = self.source.name if self.source.is_dir() else self.source.stem
        return f"{stem}_face{self.track}" if self.track else stem

    @property
    def caution(self) -> str:
        """The label as a sentence to head an output with; "" without label."""
        if self.published:
            return self.label.capitalize()
        return f"These numbers mean nothing: {self.label}" if self.label else ""

    @property
    def origins(self) -> list[str]:
        """What each published model is, in sentences."""
        return [
            f"{p['modality']} by {p['title']}; trained on {p['trained_on']}; licence "
            f"{p['licence']}; trusted for {p['reliability']}"
            for p in self.published
        ]

    @property
    def bold(self) -> tuple[str, Float32[np.ndarray, "n 2"]]:
        """What pictures show in bold, in a word, and its values."""
        tracks = {"calibrated": self.calibrated, "smoothed": self.smoothed}
        return next(((k, x) for k, x in tracks.items() if x is not None), ("raw", self.va))

    @property
    def modalities(self) -> list[str]:
        """The modalities observed in each frame, joined by `+` (`visual+audio`); "" for none."""
        return self._modalities(slice(None))

    def _modalities(self, rows: slice) -> list[str]:
        names = list(self.observed)
        masks = np.array([self.observed[name][rows] for name in names], bool)
        masks = masks.reshape(len(names), -1)
        return ["+".join(n for n, seen in zip(names, frame) if seen) for frame in masks.T]

    def columns(self, rows: slice = slice(None)) -> dict[str, list[Any]]:
        """The table that CSV and pandas show: column -> a value per frame, in order.

        The last column, `label`, exists only if `label` is not empty; it stands in the first row.

        Args:
            rows: which frames.
        """
        va = self.va[rows]
        table: dict[str, list[Any]] = {
            "frame": self.frame[rows].tolist(),
            "time_s": self.time_s[rows].tolist(),
            "valence": va[:, VALENCE].tolist(),
            "arousal": va[:, AROUSAL].tolist(),
        }
        for word, track in (("smoothed", self.smoothed), ("calibrated", self.calibrated)):
            if track is not None:
                table[f"valence_{word}"] = track[rows, VALENCE].tolist()
                table[f"arousal_{word}"] = track[rows, AROUSAL].tolist()
        for curves in self.extra.values():
            table |= curves.columns(rows)
        table["face_found"] = self.face_found[rows].tolist()
        table["face_confidence"] = self.face_confidence[rows].tolist()
        table["modalities"] = self._modalities(rows)
        if self.label:
            first = np.arange(len(self))[rows] == 0
            table["label"] = np.where(first, self.label, "").tolist()
        return table

    def to_csv(self, path: str | Path) -> None:
        """Writes a row per frame; valence and arousal are empty where nothing was observed.

        `face_found` is 1 or 0. The file is whole or absent.
        """

        def write(file: IO[str]) -> None:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_cell("", name) for name in self.columns(slice(0)))
            for start in range(0, len(self), _ROWS):
                table = self.columns(slice(start, start + _ROWS))
                writer.writerows(
                    zip(*([_cell(name, v) for v in values] for name, values in table.items()))
                )

        _write_whole(Path(path), write)

    def write_json(self, path: str | Path) -> None:
        """Writes `to_json` on one line, field by field; the file is whole or absent."""

        def write(file: IO[str]) -> None:
            for i, (key, value) in enumerate(self._json_fields()):
                file.write(f"{', ' if i else '{'}{json.dumps(key)}: ")
                file.write(json.dumps(value, allow_nan=False))
            file.write("}\n")

        _write_whole(Path(path), write)

    def to_pandas(self) -> Any:
        """The same table as a `pandas.DataFrame`, NaN where nothing was observed.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(
                "to_pandas needs pandas, which is not installed: pip install pandas "
                "(to_csv and to_json work without)"
            ) from None
        return pd.DataFrame(self.columns())

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; None where nothing was observed or no face was found."""
        return dict(self._json_fields())

    def _json_fields(self) -> Iterator[tuple[str, Any]]:
        """The names and values of `to_json`, each made when it is its turn."""
        yield "name", self.name
        yield "source", str(self.source)
        yield "track", self.track
        yield "label", self.label
        yield "published", [dict(p) for p in self.published]
        yield "notes", list(self.notes)
        yield "facts", {key: float(value) for key, value in self.facts.items()}
        yield "summary", self.statistics()
        yield "frame", self.frame.tolist()
        yield "time_s", self.time_s.tolist()
        yield "va", _rows(self.va)
        yield "smoothed", None if self.smoothed is None else _rows(self.smoothed)
        yield "calibrated", None if self.calibrated is None else _rows(self.calibrated)
        yield "calibration", None if self.calibration is None else dict(self.calibration)
        yield "extra", {name: x.to_json(_rows(x.values)) for name, x in self.extra.items()}
        yield "face_found", self.face_found.tolist()
        yield "face_confidence", self.face_confidence.tolist()
        yield "boxes", _rows(self.boxes)
        yield "observed", {m: mask.tolist() for m, mask in self.observed.items()}
        yield "words", [dataclasses.asdict(word) for word in self.words]
        shares = self.contributions
        shares = None if shares is None else {m: _rows(v) for m, v in shares.items()}
        yield "contributions", shares

    def statistics(self) -> dict[str, Any]:
        """The numbers of `summary`: frames, predicted frames, and of each dimension mean, its 95 %
        interval (`mean_interval`, None if it is unknown), standard deviation, least and most (None
        if nothing was predicted); share of frames per modality; `ExtraCurves.statistics` of others.
        """
        predicted = self.va[~np.isnan(self.va).any(axis=1)].astype(np.float64)
        numbers: dict[str, Any] = {"num_frames": len(self), "num_predicted": len(predicted)}
        for name, column in (("valence", VALENCE), ("arousal", AROUSAL)):
            v = predicted[:, column]
            numbers[name] = spread(v) if len(v) else None
        numbers["observed"] = {
            m: float(a.mean()) if len(a) else 0.0 for m, a in self.observed.items()
        }
        numbers["extra"] = {name: curves.statistics() for name, curves in self.extra.items()}
        return numbers

    def summary(self) -> str:
        """Some lines to read: the label, the length, the modalities, the numbers, the notes."""
        numbers = self.statistics()
        lines = [self.title]
        if self.label:
            head = "CAUTION" if self.published else "MEANINGLESS NUMBERS"
            lines.append(f"  {head}: {self.label}")
        duration = self.facts.get("duration_s")
        length = "" if duration is None else f", {duration:.1f} s"
        shares = ", ".join(f"{m} in {s:.0%}" for m, s in numbers["observed"].items())
        lines.append(f"  {len(self):,} frames{length}; {shares} of them")
        for name in ("valence", "arousal"):
            v = numbers[name]
            lines.append(f"  {name} {'not predicted' if v is None else spread_in_words(v)}")
        lines += [f"  {printable(name)} {x.in_words()}" for name, x in self.extra.items()]
        return "\n".join(lines + [f"  {note}" for note in (*self.origins, *self.notes)])


def _write_whole(path: Path, write: Callable[[IO[str]], None]) -> None:
    """Makes the file, and its folder, by what `write` puts into it; it is whole or absent."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write(file)


def _cell(column: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        digits = 4 if column == "face_confidence" else 6
        return "" if math.isnan(value) else f"{value:.{digits}f}"
    # Spreadsheets compute cells that begin so; names of modalities may be a stranger's.
    text = printable(str(value))
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def _rows(values: Float32[np.ndarray, "n _"]) -> list[list[float] | None]:
    """Rows as lists, None for rows of NaN."""
    return [None if math.isnan(row[0]) else row for row in values.tolist()]
