"""One table of the predictions of many media, as CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maven_jax.errors import UserError

_ENDINGS = (".csv", ".parquet")
# What is in the columns that are no 32-bit floats.
_TYPES = {
    "video": "string",
    "face": "string",
    "frame": "int64",
    "time_s": "float64",
    "face_found": "bool",
    "modalities": "string",
    "label": "string",
}


@dataclass(frozen=True)
class Part:
    """The table of one prediction.

    Attributes:
        video: the medium, as it was given.
        face: its number, if several were predicted.
        path: CSV file of `VideoPrediction.to_csv`.
    """

    video: str
    face: str
    path: Path


def check_name(path: Path) -> None:
    """Raises UserError unless the name of a table says which kind it is to be."""
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"--table {path}: expected a name that ends in {' or '.join(_ENDINGS)}")


def write_table(parts: Sequence[Part], path: Path) -> None:
    """Writes the rows of all parts, one below the other, with the columns video and face in front.

    Memory holds one part at a time.

    Args:
        parts: at least one; a column that one of them lacks is empty in its rows.
        path: file to write; its name says which kind.
    """
    columns: dict[str, None] = {"video": None, "face": None}
    for part in parts:
        with part.path.open(encoding="utf-8", newline="") as file:
            columns.update(dict.fromkeys(next(csv.reader(file))))
    if path.suffix.lower() == ".parquet":
        _write_parquet(parts, path, list(columns))
        return
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        for part in parts:
            with part.path.open(encoding="utf-8", newline="") as file:
                whose = {"video": _plain(part.video), "face": part.face}
                writer.writerows(whose | row for row in csv.DictReader(file))


def _plain(text: str) -> str:
    """A text that spreadsheets do not compute, and that can be written."""
    text = text.encode(errors="replace").decode()
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def _write_parquet(parts: Sequence[Part], path: Path, columns: Sequence[str]) -> None:
    # Imported here to start faster: other tables need none of it.
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    kinds = {name: pa.type_for_alias(_TYPES.get(name, "float32")) for name in columns}
    schema = pa.schema(list(kinds.items()))
    options = pyarrow.csv.ConvertOptions(
        column_types=schema, strings_can_be_null=True, true_values=["1"], false_values=["0"]
    )
    with pyarrow.parquet.ParquetWriter(str(path), schema) as writer:
        for part in parts:
            rows: Any = pyarrow.csv.read_csv(part.path, convert_options=options)
            whose = {"video": part.video.encode(errors="replace").decode(), "face": part.face}
            arrays = [
                rows.column(name).combine_chunks()
                if name in rows.column_names
                else pa.array([whose.get(name)] * rows.num_rows, schema.field(name).type)
                for name in columns
            ]
            writer.write_table(pa.table(arrays, schema=schema))
