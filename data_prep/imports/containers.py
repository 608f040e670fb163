"""Feature tables in other containers than text: Parquet, Weka's ARFF, MATLAB's .mat.

| file | columns |
|---|---|
| .parquet | as named; levels of pandas' index are columns too, durations are seconds |
| .arff (openSMILE) | the attributes; strings and nominal ones only where they are bookkeeping |
| .mat | each variable with a row per time: one column by the variable's name, several `name_1`, …
  or by a cell array of as many names |

They are read as data: nothing in them is run. A pickle cannot be, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_prep.imports.columns import BOOKKEEPING
from data_prep.imports.tables import UNITS_S, TextTable, read_rows, read_table
from maven_jax.media.problems import InputError, check_file, printable, read_text

CONTAINERS = (".parquet", ".arff", ".mat")
PICKLES = (".pkl", ".pickle", ".p")
# Of one file: an hour at 100 Hz has 360,000 rows.
_MOST_VALUES = 500_000_000
_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(.+)", re.IGNORECASE)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NUMERIC = ("numeric", "real", "integer")


@dataclass(frozen=True)
class ArrayTable:
    """A table whose cells are no text; its methods are those of `TextTable`.

    Attributes:
        path: its file.
        names: of the columns.
        columns: (n,) numbers, or texts, of each.
        durations: columns that are seconds, whatever is said of their unit.
    """

    path: Path
    names: tuple[str, ...]
    columns: list[np.ndarray]
    durations: frozenset[int] = field(default_factory=frozenset)

    @property
    def rows(self) -> range:
        return range(len(self.columns[0]))

    @property
    def lines(self) -> list[int]:
        """The number of each row, from 1."""
        return list(range(1, len(self.rows) + 1))

    def column(self, index: int) -> list[str]:
        """A column's cells."""
        return [str(cell) for cell in self.columns[index]]

    def numbers(self, columns: Sequence[int]) -> Float[np.ndarray, "n c"]:
        """Columns as numbers, NaN where there is none.

        Raises:
            InputError: a column holds something else.
        """
        for index in columns:
            if self.columns[index].dtype.kind not in "fiub":
                name = printable(self.names[index], 40)
                raise InputError(self.path, f"column {name!r}", "not numbers")
        return np.stack([self.columns[i].astype(np.float64) for i in columns], axis=1)

    def seconds(self, column: int, unit: str) -> Float[np.ndarray, "n"]:
        """A column of times in seconds; see `TextTable.seconds`."""
        scale = 1.0 if column in self.durations else UNITS_S[unit]
        return self.numbers([column])[:, 0] * scale


def read_any_table(path: Path, max_bytes: int, what: str) -> TextTable | ArrayTable:
    """Reads a table of text or of one of `CONTAINERS` whole; arguments as for `read_table`.

    Raises:
        InputError: it cannot be read; names the line, if it has lines.
    """
    readers: dict[str, Callable[[Path], TextTable | ArrayTable]] = {
        ".parquet": _read_parquet,
        ".mat": _read_mat,
        ".arff": lambda p: _read_arff(p, max_bytes, what),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        return read_table(path, max_bytes, what)
    check_file(path)
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:  # of any kind, from the libraries that read such files
        reason = printable(" ".join(str(error).split()), 120)
        raise InputError(path, "", f"not a readable {path.suffix} file: {reason}") from None


def _check_size(path: Path, values: int) -> None:
    if values > _MOST_VALUES:
        raise InputError(path, "", f"{values:,} values: too large")


def _read_parquet(path: Path) -> ArrayTable:
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        _check_size(path, file.metadata.num_rows * file.metadata.num_columns)
        table = file.read()
    if not table.num_rows or not table.num_columns:
        raise InputError(path, "", "no rows or no columns")
    columns, durations = [], set()
    for i, column in enumerate(table.columns):
        kind = column.type
        if pyarrow.types.is_duration(kind) or pyarrow.types.is_time(kind):
            # Through nanoseconds as integers: exact for what a recording lasts.
            nanoseconds = column.cast(
                pyarrow.duration("ns") if pyarrow.types.is_duration(kind) else pyarrow.time64("ns")
            )
            column = nanoseconds.cast(pyarrow.int64())
            durations.add(i)
        values = column.to_numpy()
        columns.append(values / 1e9 if i in durations else values)
    names = tuple(re.sub(r"__index_level_\d+__", "", name) for name in table.column_names)
    return ArrayTable(path, names, columns, frozenset(durations))


def _read_arff(path: Path, max_bytes: int, what: str) -> TextTable:
    text, fixes = read_text(path, max_bytes, what)
    names, kept, lines = [], [], text.split("\n")
    for number, line in enumerate(lines):
        word = line.strip().lower()
        if word.startswith("@data"):
            break
        if word.startswith("@attribute"):
            match = _ATTRIBUTE.fullmatch(line.strip())
            if match is None:
                raise InputError(path, f"line {number + 1}", "an attribute without a type")
            name, kind = match[1].strip("'\""), match[2].strip().lower()
            kept.append(kind in _NUMERIC or name.lower() in BOOKKEEPING)
            names.append(name)
    else:
        raise InputError(path, "", "no @data: not an ARFF file")
    body = "\n".join(x for x in lines[number + 1 :] if x.strip() and not x.lstrip().startswith("%"))
    if not body.strip() or not names:
        raise InputError(path, "", "no attributes or no rows behind @data")
    rows, of_line = read_rows(path, body.rstrip(), ",", len(names), number + 1, quote="'")
    # A class that nobody told: openSMILE writes `?` in each row.
    told = [any(row[i].strip() != "?" for row in rows) for i in range(len(names))]
    use = [i for i in range(len(names)) if kept[i] and told[i]]
    picked = [[row[i] for i in use] for row in rows]
    return TextTable(path, tuple(names[i] for i in use), picked, of_line, fixes)


def _read_mat(path: Path) -> ArrayTable:
    import scipy.io

    with open(path, "rb") as file:
        head = file.read(512 + len(_HDF5))
    if head.startswith(_HDF5) or head.endswith(_HDF5):  # MATLAB 7.3 puts 512 bytes before it
        return _table_of(path, _read_hdf5(path))
    sizes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
    _check_size(path, sum(int(np.prod(shape, dtype=np.int64)) for shape in sizes.values()))
    return _table_of(path, scipy.io.loadmat(path, chars_as_strings=True))


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    """Numeric variables at the root of an HDF5 file, as MATLAB shows them."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            path, "", "MATLAB 7.3: pip install h5py, or save it with -v7 (no HDF5)"
        ) from None
    variables: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        for name in map(str, file):
            is_inside = isinstance(file.get(name, getlink=True), h5py.HardLink)
            item: Any = file[name] if is_inside else None
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                _check_size(path, int(np.prod(item.shape, dtype=np.int64)))
                variables[name] = np.asarray(item[()]).T  # columns come first in MATLAB's files
    return variables


def _table_of(path: Path, variables: Mapping[str, Any]) -> ArrayTable:
    """A table of the variables of a .mat file that have as many rows as its largest matrix."""
    matrices = {
        name: value.reshape(-1, 1) if 1 in value.shape else value
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.ndim == 2
    }
    matrices = {name: value for name, value in matrices.items() if value.size}
    if not matrices:
        raise InputError(path, "", "no variable is a matrix of numbers")
    count = len(max(matrices.values(), key=lambda value: value.size))
    labels = [_texts(value) for value in variables.values()]
    names: list[str] = []
    columns: list[np.ndarray] = []
    for name, value in matrices.items():
        if len(value) != count:
            continue
        width = value.shape[1]
        own = next((texts for texts in labels if len(texts) == width > 1), None)
        names += own or ([name] if width == 1 else [f"{name}_{i + 1}" for i in range(width)])
        columns += list(value.T)
    return ArrayTable(path, tuple(names), columns)


def _texts(value: Any) -> list[str]:
    """The texts of a cell array; none of anything else."""
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return []
    cells = [np.asarray(cell).ravel() for cell in value.ravel()]
    if all(len(cell) == 1 and isinstance(cell[0], str) for cell in cells):
        return [str(cell[0]).strip() for cell in cells]
    return []
