"""Text tables as programs of this field write them: a header, then a row per line.

Cells are separated by commas, semicolons or tabs (told by the header) and may be quoted.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maven_jax.errors import UserError
from maven_jax.media.problems import Fix, InputError, printable, read_text

TABLES = (".csv", ".tsv")
SEPARATORS = (",", ";", "\t")
# Seconds per unit of a column of times.
UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_NUMBER = re.compile(r"[+-]?[\d.]+(?:e[+-]?\d+)?", re.IGNORECASE)
# A decimal comma, which programs of some languages write where semicolons separate.
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
# What pandas and spreadsheets write for a duration: `0 days 00:00:01.5`, `01:02.5`.
_DURATION = re.compile(
    r"(?:(?P<days>\d+) days?,? ?)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d+)?)"
)
# What programs write where they have no value.
_NOTHING = frozenset(("", "nan", "na", "n/a", "none", "null", "nat", "?"))


@dataclass(frozen=True)
class TextTable:
    """A table read whole.

    Attributes:
        path: its file.
        names: of the columns, without quotes and spaces around them.
        rows: cells, all rows as long as `names`.
        lines: the line that each row stands in, counted from 1.
        fixes: what was mended while reading.
    """

    path: Path
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    fixes: list[Fix]

    def column(self, index: int) -> list[str]:
        """A column's cells."""
        return [row[index] for row in self.rows]

    def numbers(self, columns: list[int]) -> Float[np.ndarray, "n c"]:
        """Columns as numbers, NaN for empty cells.

        Raises:
            InputError: a cell is not a number; names its line and column.
        """
        picked = [[row[c] for c in columns] for row in self.rows]
        try:
            return np.array(picked, np.float64).reshape(len(picked), len(columns))
        except ValueError:
            values = [
                [self._number(i, c, cell) for c, cell in zip(columns, row)]
                for i, row in enumerate(picked)
            ]
            return np.array(values, np.float64)

    def _number(self, row: int, column: int, cell: str) -> float:
        text = cell.strip()
        if text.lower() in _NOTHING:
            return np.nan
        if _DECIMAL_COMMA.fullmatch(text):
            text = text.replace(",", ".")
        try:
            return float(text)
        except ValueError:
            name = printable(self.names[column], 40)
            message = f"not numbers: {printable(cell, 40)!r} in column {name!r}"
            raise InputError(self.path, f"line {self.lines[row]}", message) from None

    def seconds(self, column: int, unit: str) -> Float[np.ndarray, "n"]:
        """A column of times in seconds; NaN for empty cells.

        Args:
            column: which one.
            unit: of `UNITS_S`; cells like `0 days 00:00:01.5` and `01:02.5` say their own.

        Raises:
            InputError: a cell is no time; names its line.
        """
        cells = self.column(column)
        if any(":" in cell for cell in cells[:1]):
            return np.array([self._duration(i, cell) for i, cell in enumerate(cells)])
        return self.numbers([column])[:, 0] * UNITS_S[unit]

    def _duration(self, row: int, cell: str) -> float:
        if cell.strip().lower() in _NOTHING:
            return np.nan
        match = _DURATION.fullmatch(cell.strip())
        if match is None:
            message = f"{printable(cell, 40)!r} is no time"
            raise InputError(self.path, f"line {self.lines[row]}", message)
        days, hours, minutes, seconds = (float(g or 0) for g in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def checked_unit(unit: str) -> str:
    """A unit of time. Raises UserError for another word."""
    if unit not in UNITS_S:
        raise UserError(f"--time-unit {unit}: expected one of {', '.join(UNITS_S)}")
    return unit


def split_header(line: str) -> tuple[tuple[str, ...], str]:
    """The names in a header, and what separates them."""
    separator = max(SEPARATORS, key=lambda s: (line.count(s), -SEPARATORS.index(s)))
    names = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    return tuple(name.strip().strip("'\"").strip() for name in names), separator


def read_table(path: Path, max_bytes: int, what: str) -> TextTable:
    """Reads a table whole.

    Args:
        path: the file.
        max_bytes: larger files are refused before they are read.
        what: what the file should be, for the messages.

    Raises:
        InputError: it cannot be read, has no header, or a row of another length; names the line.
    """
    text, fixes = read_text(path, max_bytes, what)
    if not text.strip():
        raise InputError(path, "", "the file is empty")
    header, _, body = text.partition("\n")
    before = 1
    if re.fullmatch(r'"?sep=.?"?', header.strip(), re.IGNORECASE):  # for a spreadsheet alone
        header, _, body = body.partition("\n")
        before = 2
    names, separator = split_header(header)
    numbered = [str(i) for i in range(len(names))]  # as pandas names them by itself
    if list(names) != numbered and all(_NUMBER.fullmatch(name) for name in names):
        message = "no header: the first line holds numbers; name the columns"
        raise InputError(path, "line 1", message)
    if not body.strip():
        raise InputError(path, "", "no rows behind the header")
    rows, lines = read_rows(path, body.rstrip(), separator, len(names), before)
    return TextTable(Path(path), names, rows, lines, fixes)


def read_rows(
    path: Path, body: str, separator: str, width: int, before: int, quote: str = '"'
) -> tuple[list[list[str]], list[int]]:
    """The cells of rows, and the line that each stands in.

    Args:
        path: the file, for messages.
        body: its rows.
        separator: of cells.
        width: cells that each row has to have.
        before: lines before the first row.
        quote: around cells that hold a separator.

    Raises:
        InputError: a row of another width; names its line.
    """
    rows, lines = [], []
    reader = csv.reader(
        body.split("\n"), delimiter=separator, skipinitialspace=True, quotechar=quote
    )
    try:
        for cells in reader:
            line = reader.line_num + before
            if len(cells) == width + 1 and not cells[-1].strip():
                cells.pop()  # a separator behind the last cell
            if len(cells) != width:
                count = f"{len(cells)} column{'s' * (len(cells) > 1)} instead of {width}"
                raise InputError(path, f"line {line}", count if cells else "a blank line")
            rows.append(cells)
            lines.append(line)
    except csv.Error as error:
        raise InputError(path, f"line {reader.line_num + before}", str(error)) from None
    return rows, lines
