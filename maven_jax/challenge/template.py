"""The challenge's file: one line for each image of the organisers' template, in its order.

    image_location,valence,arousal
    <video>/00001.jpg,0.012345,-0.234567

Image k of a video is its k-th frame.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from maven_jax.errors import UserError
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.files import whole_file
from maven_jax.inputs import read_file
from maven_jax.store.schema import VideoEntry
from maven_jax.types import DIMENSIONS

HEADER = "image_location,valence,arousal"
_BOM = b"\xef\xbb\xbf"
_LOCATION = re.compile(r"(.+)/(\d{1,9})\.jpg", re.ASCII)
# float() would also take `1_0` and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True)
class Template:
    """The rows that a submission has to have.

    Attributes:
        path: of the file.
        locations: image locations in order.
        rows: video -> which of the rows are its.
        frames: of each row, the frame's index within its video, from 0.
    """

    path: Path
    locations: list[str]
    rows: dict[str, Int[np.ndarray, "_"]]
    frames: Int[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.locations)


@dataclass
class Fault:
    """One kind of fault in a submission.

    Attributes:
        line: of the first one, 0 for the file as a whole.
        reason: what is wrong.
        count: how many there are of the kind.
    """

    line: int
    reason: str
    count: int = 1

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.reason}" + (f" (and {self.count - 1:,} more)" * (self.count > 1))


@dataclass
class Checked:
    """The contents of a submission.

    Attributes:
        faults: the first of each kind, by line; empty for a file that can be handed in.
        values: (n, 2) valence and arousal of the template's rows; NaN where the file has none.
    """

    faults: list[Fault]
    values: Float[np.ndarray, "n 2"]


def _lines(path: Path) -> list[bytes]:
    """Lines without their ends; the last one is empty if the file ends with a line's end."""
    return read_file(path, "rows of the challenge").split(b"\n")


def read_template(path: Path | str) -> Template:
    """Reads the organisers' template: a submission without values, or with any values.

    A byte order mark, Windows line ends and blank lines at the end are accepted.

    Raises:
        UserError: no rows, a row that is no `<video>/00001.jpg`, or one that occurs twice.
    """
    path = Path(path)
    lines = _lines(path)
    locations: list[str] = []
    rows: dict[str, list[int]] = defaultdict(list)
    frames: list[int] = []
    seen: dict[str, int] = {}
    for number, raw in enumerate(lines, 1):
        text = raw.removeprefix(_BOM if number == 1 else b"").decode("utf-8", "replace").strip()
        location = text.split(",", 1)[0].strip()
        if not text or (number == 1 and location.lower() == "image_location"):
            continue
        match = _LOCATION.fullmatch(location)
        if match is None or int(match[2]) < 1:
            raise UserError(
                f"{path}: line {number}: {_short(location)} is not <video>/00001.jpg; is it the "
                "challenge's template?"
            )
        if location in seen:
            first = seen[location]
            raise UserError(f"{path}: line {number}: {_short(location)} is in line {first} too")
        seen[location] = number
        rows[match[1]].append(len(locations))
        locations.append(location)
        frames.append(int(match[2]) - 1)
    if not locations:
        raise UserError(f"{path}: no rows; is it the challenge's template?")
    return Template(
        path, locations, {v: np.array(i) for v, i in rows.items()}, np.array(frames, np.int64)
    )


def write_submission(
    path: Path | str, template: Template, values: Float[np.ndarray, "n 2"]
) -> None:
    """Writes the template's rows with these values; the file appears whole or not at all.

    Raises:
        ValueError: a value is not in [-1, 1].
    """
    if not (np.abs(values) <= 1).all():
        raise ValueError("a value of the submission is not in [-1, 1]")
    with (
        whole_file(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(HEADER + "\n")
        for location, (valence, arousal) in zip(template.locations, values.tolist()):
            file.write(f"{location},{valence:.6f},{arousal:.6f}\n")


@dataclass
class _Check:
    """A check under way: the faults met so far, the first of each kind."""

    template: Template
    faults: dict[str, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = np.full((len(self.template), 2), np.nan)
        self.where = {name: i for i, name in enumerate(self.template.locations)}
        self.lines = np.zeros(len(self.template), np.int64)  # of each row's first one
        self.last = -1  # the furthest row of the template so far

    def fault(self, kind: str, line: int, reason: str) -> None:
        if kind in self.faults:
            self.faults[kind].count += 1
        else:
            self.faults[kind] = Fault(line, reason)

    def header(self, text: str) -> bool:
        """Whether line 1 is a header; False if it is a row."""
        if text == HEADER:
            return True
        names = [name.strip().lower() for name in text.split(",")]
        if _LOCATION.fullmatch(text.split(",", 1)[0].strip()):
            self.fault("header", 1, f"the header {HEADER} is missing: this is a row")
            return False
        swapped = sorted(names) == sorted(HEADER.split(","))
        what = "its columns are swapped" if swapped and names != HEADER.split(",") else ""
        self.fault("header", 1, f"the header is {_short(text)}, not {HEADER}{what and '; '}{what}")
        return True

    def row(self, line: int, text: str) -> None:
        """Takes in one line."""
        if not text.strip():
            self.fault("blank", line, "a blank line")
            return
        cells = text.split(",", 8)
        if len(cells) != 3:
            kind = next((f"; is it separated by {n}?" for s, n in _OTHERS if s in text), "")
            count = text.count(",") + 1
            columns = f"{count} column{'s' * (count > 1)} instead of 3"
            self.fault("columns", line, f"{columns}: {_short(text)}{kind}")
            if cells[0] not in self.where:  # which cell is which cannot be told
                return
        if text == HEADER:
            self.fault("header again", line, "the header among the rows")
            return
        index = self._place(line, cells[0])
        if len(cells) == 3:
            numbers = [self._number(line, name, cell) for name, cell in zip(DIMENSIONS, cells[1:])]
            if index is not None:
                self.values[index] = numbers

    def _place(self, line: int, location: str) -> int | None:
        """Which row of the template this is; None for one that does not count."""
        index = self.where.get(location)
        if index is None and location.strip() in self.where:
            self.fault("spaces", line, f"spaces around {_short(location.strip())}")
            index = self.where[location.strip()]
        if index is None:
            spelled = _five_digits(location)
            index = self.where.get(spelled)
            if index is not None:
                reason = f"{_short(location)} is called {_short(spelled)} in the template"
                self.fault("digits", line, reason)
        if index is None:
            video = location.rpartition("/")[0]
            if video in self.template.rows:
                self.fault("extra", line, f"{_short(location)} is not in the template")
            else:
                self.fault("video", line, f"{_short(location)}: no such video in the template")
            return None
        if self.lines[index]:
            first = self.lines[index]
            self.fault("twice", line, f"{_short(location)} is in line {first} too")
            return None
        self.lines[index] = line
        if index < self.last:
            before = self.template.locations[self.last]
            self.fault(
                "order",
                line,
                f"{_short(location)} behind {_short(before)}: not the template's order",
            )
        self.last = max(self.last, index)
        return index

    def _number(self, line: int, name: str, cell: str) -> float:
        text = cell.strip()
        if text and text != cell:
            self.fault("spaces", line, f"spaces around {name} {_short(text)}")
        if _NOT_FINITE.fullmatch(text):
            self.fault("nan", line, f"{name} is {_short(text)}")
        elif not _NUMBER.fullmatch(text):
            what = f"{_short(text)} is not a number" if text else "is missing"
            self.fault("number", line, f"{name} {what}")
        elif not -1 <= float(text) <= 1:
            self.fault("range", line, f"{name} {_short(text)} is outside [-1, 1]")
        else:
            return float(text)
        return np.nan

    def missing(self) -> None:
        """Names the first of the template's rows that the file lacks."""
        absent = np.flatnonzero(self.lines == 0)
        if not len(absent):
            return
        name, index = self.template.locations[absent[0]], absent[0]
        behind = int(self.lines[index - 1]) if index else 1
        line = f", it belongs behind line {behind}" if behind else ""
        self.faults["missing"] = Fault(0, f"no row {_short(name)}{line}", len(absent))


def _five_digits(location: str) -> str:
    """An image location with its number in the usual five digits; others as they are."""
    match = _LOCATION.fullmatch(location)
    return f"{match[1]}/{int(match[2]):05d}.jpg" if match else location


_OTHERS = ((";", "semicolons"), ("\t", "tabs"))


def check_submission(path: Path | str, template: Template) -> Checked:
    """Compares a submission with the template, row by row.

    Raises:
        UserError: the file cannot be read.
    """
    lines = _lines(Path(path))
    check = _Check(template)
    if not any(lines):
        check.fault("empty", 0, "the file is empty")
        return Checked(list(check.faults.values()), check.values)
    if lines[-1]:
        check.fault(
            "cut", len(lines), f"no line's end behind {_text(lines[-1])}: the file may be cut off"
        )
    else:
        lines.pop()
    for number, text in _decoded(lines, check):
        if number > 1 or not check.header(text):
            check.row(number, text)
    if len(lines) == 1 and "header" not in check.faults:
        check.fault("empty", 1, "no rows behind the header")
    check.missing()
    order = sorted(check.faults.values(), key=lambda f: (f.line or 2**31, f.reason))
    return Checked(order, check.values)


def _decoded(lines: list[bytes], check: _Check) -> Iterator[tuple[int, str]]:
    """Numbered lines as text; oddities of their bytes are noted."""
    for number, raw in enumerate(lines, 1):
        if number == 1 and raw.startswith(_BOM):
            check.fault("bom", 1, "a byte order mark (BOM): save as UTF-8 without it")
            raw = raw.removeprefix(_BOM)
        if raw.endswith(b"\r"):
            check.fault("crlf", number, r"a Windows line end (CRLF): expected \n")
            raw = raw[:-1]
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            check.fault("encoding", number, f"byte 0x{byte:02x} is not UTF-8 text")
            text = raw.decode("utf-8", "replace")
        yield number, text


def labelled_videos(
    template: Template,
    values: Float[np.ndarray, "n 2"],
    labels: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> list[PredictedVideo]:
    """The rows of annotated videos, to be scored; rows without a value or a label do not count.

    Args:
        template: the rows.
        values: of each row.
        labels: video -> its frames' targets (n, 2) and which of them are annotated (n,).
    """
    videos = []
    for name, rows in template.rows.items():
        if name not in labels:
            continue
        targets, annotated = labels[name]
        rows = rows[template.frames[rows] < len(targets)]
        frames = template.frames[rows]
        scored = annotated[frames] & np.isfinite(values[rows]).all(1)
        if len(rows):
            videos.append(
                PredictedVideo(
                    entry=bare_entry(name, len(rows), int(scored.sum())),
                    predictions=np.where(scored[:, None], values[rows], 0.0).astype(np.float32),
                    targets=np.where(scored[:, None], targets[frames], 0.0).astype(np.float32),
                    target_mask=scored,
                )
            )
    return videos


def bare_entry(video: str, num_frames: int, num_annotated: int) -> VideoEntry:
    """The entry of a video that is known by its rows alone."""
    return VideoEntry(
        video=video,
        split="",
        num_frames=num_frames,
        first_record=0,
        fps=0.0,
        duration_s=0.0,
        num_annotated=num_annotated,
        stem=video,
        observed={},
        nonfinite={},
        segments=((0, num_frames),),
    )


def _short(text: str, limit: int = 60) -> str:
    """Quoted, printable, not long."""
    return repr(text if len(text) <= limit else f"{text[: limit - 21]}…{text[-20:]}")


def _text(raw: bytes) -> str:
    return _short(raw.decode("utf-8", "replace"))
