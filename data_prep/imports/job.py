"""An import of features before anything is stored: all files looked at, all problems named."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.table import Table

from data_prep.corpus.extra_targets import settled
from data_prep.imports.columns import Columns
from data_prep.imports.files import (
    TOLERATED_FRAMES,
    TOLERATED_SHARE,
    FeatureRows,
    FeatureTable,
    Reading,
    open_npy,
    read_features,
)
from data_prep.imports.grid import Grid
from data_prep.imports.spread import Spread
from maven_jax.errors import UserError, listing
from maven_jax.media.problems import (
    NOTE,
    REPAIRED,
    UNUSABLE,
    InputError,
    Problem,
    from_error,
    printable,
    relative,
)
from maven_jax.progress import console, meter, say
from maven_jax.store.schema import ExtraTarget, ModalitySpec

# Tables that are read are kept until they take so much memory together, larger ones read again.
_KEPT_BYTES = 256 << 20
# Rows of the table, in this order.
RULES = (
    "row = frame",
    "rows too many",
    "rows too few",
    "interpolated",
    "by frame number",
    "none: masked",
    "unusable",
    "without annotation",
)


@dataclass
class FeatureImport:
    """What is imported.

    Attributes:
        features: the folder of features.
        files: modality -> video -> file.
        readings: modality -> how its files are read.
        fps: frames per second where nothing tells times, None where nobody says.
        grids: all videos by name.
        dims: modality -> channels.
        columns: modality -> names of the channels, where .csv files tell them.
        programs: modality -> what wrote its .csv files, where that is known.
        dtypes: modality -> what its values are stored as.
        extra_targets: of the videos, beside valence and arousal.
        problems: of all files.
        kinds: modality -> rule of `RULES` -> how many videos it applies to.
    """

    features: Path
    files: dict[str, dict[str, Path]]
    readings: dict[str, Reading]
    fps: float | int | None = None
    grids: dict[str, Grid] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    extra_targets: dict[str, ExtraTarget] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    _kept: dict[Path, FeatureTable] = field(default_factory=dict)
    _kept_bytes: int = 0

    def note(self, severity: str, path: Path, video: str, message: str) -> None:
        file = relative(path, self.features)
        self.problems.append(Problem(severity, file, "", message, video))

    def unusable(self) -> dict[str, str]:
        """Video (or file, if it belongs to no video) -> the first reason."""
        reasons: dict[str, str] = {}
        for p in self.problems:
            if p.severity == UNUSABLE:
                reasons.setdefault(p.video or p.file, str(p))
        return reasons

    def check(self) -> None:
        """Looks at all files; fills all that is not given."""
        self._settle_extra_targets()
        widths: dict[str, dict[str, int]] = {}
        rows: dict[tuple[str, str], int] = {}
        number = sum(map(len, self.files.values()))
        with meter("features", float(number), "files", initial=0.0) as progress:
            for modality, files in self.files.items():
                widths[modality] = {}
                tables: dict[str, Columns] = {}
                self.kinds[modality] = Counter()
                for video, path in files.items():
                    progress.advance()
                    if video not in self.grids:
                        message = "no annotation and in no list of test videos: unused"
                        self.note(NOTE, path, "", message)
                        self.kinds[modality]["without annotation"] += 1
                        continue
                    try:
                        if path.suffix.lower() == ".npy":
                            rows[modality, video], widths[modality][video] = open_npy(path).shape
                        else:
                            table = self._table(modality, path)
                            tables[video] = table.columns
                            widths[modality][video] = len(table.columns.features)
                            self._count_rule(modality, video, table.rows, rows)
                    except InputError as error:
                        self.problems.append(from_error(error, self.features, video))
                        self.kinds[modality]["unusable"] += 1
                self._settle_width(modality, widths[modality])
                self._compare_columns(modality, tables)
        for video, grid in self.grids.items():
            self.problems += grid.problems
            if grid.whole_clip:
                self._repeat_rating(grid)
            if len(grid.time_s):
                self._check_video(video, len(grid.time_s), widths, rows)
        self._choose_dtypes(widths)

    def _settle_extra_targets(self) -> None:
        """Sets `extra_targets` to those of all videos; one that has a modality's name is noted."""
        for target in settled(t for grid in self.grids.values() for t in grid.extra).values():
            if target.name in self.files:
                message = f"the extra target {target.name} is left out: a modality has its name"
                self.note(NOTE, self.features / target.name, "", message)
            else:
                self.extra_targets[target.name] = target

    def _table(self, modality: str, path: Path) -> FeatureTable:
        if path in self._kept:
            return self._kept[path]
        table = read_features(path, self.readings[modality])
        self._kept_bytes += table.rows.values.nbytes
        if self._kept_bytes <= _KEPT_BYTES:
            self._kept[path] = table
        return table

    def _repeat_rating(self, grid: Grid) -> None:
        """Gives a clip with one rating its frames: one, or as many as its features last."""
        if all(self._length(m, grid.video, 1.0) <= 1 for m in self.files):
            return
        if self.fps is None:
            path = next(f[grid.video] for f in self.files.values() if grid.video in f)
            message = "one rating for several rows; --fps says how often a second it is repeated"
            self.note(UNUSABLE, path, grid.video, message)
            grid.time_s = np.zeros(0)
            return
        lengths = [self._length(m, grid.video, float(self.fps)) for m in self.files]
        grid.repeat(max(lengths), self.fps)

    def _length(self, modality: str, video: str, fps: float) -> int:
        """Frames that a modality's rows last, at a rate; 1 for one row, 0 where nothing is."""
        try:
            source = self.rows(modality, video)
        except InputError:  # `check` has noted it
            return 0
        if source is None or len(source.values) < 2:
            return 0 if source is None else 1
        if source.time_s is None or source.in_frames:
            return len(source.values) if source.time_s is None else int(source.time_s[-1]) + 1
        return int(source.time_s[-1] * fps + 1e-6) + 1

    def _count_rule(
        self, modality: str, video: str, source: FeatureRows, rows: dict[tuple[str, str], int]
    ) -> None:
        """Counts the rule for a table's rows; those paired by index go into `rows`."""
        if source.time_s is None:
            rows[modality, video] = len(source.values)
        else:
            self.kinds[modality]["by frame number" if source.in_frames else "interpolated"] += 1

    def _settle_width(self, modality: str, widths: dict[str, int]) -> None:
        """Sets `dims` to the most frequent width, the smaller one of two equally frequent."""
        if not widths:
            where = self.features / modality
            reasons = self.unusable()
            if reasons:
                raise UserError(f"{where}: not one usable file: {next(iter(reasons.values()))}")
            raise UserError(f"{where}: not one file belongs to a video with annotation")
        counts = sorted(Counter(widths.values()).items())
        self.dims[modality] = max(counts, key=lambda item: item[1])[0]

    def _compare_columns(self, modality: str, tables: dict[str, Columns]) -> None:
        """Sets `columns` to the most frequent ones, which all files must have, in any order."""
        files, width = self.files[modality], self.dims[modality]
        alike = {v: c for v, c in tables.items() if len(c.features) == width}
        if not alike:
            return
        counts = Counter(c.feature_names for c in alike.values())
        columns = self.columns[modality] = max(sorted(counts.items()), key=lambda kv: kv[1])[0]
        ordered = [video for video, table in alike.items() if table.fits(columns)]
        for video in alike.keys() - set(ordered):
            missing = [printable(n) for n in columns if n not in alike[video].feature_names]
            message = f"its columns are not those of most files: {listing(missing, 3)} missing"
            message = message if missing else "columns that share a name, in another order"
            self.note(UNUSABLE, files[video], video, message)
            self.kinds[modality]["unusable"] += 1
        programs = Counter(c.program for c in alike.values() if c.program)
        if programs:
            self.programs[modality] = programs.most_common(1)[0][0]
        by = f" of {self.programs[modality]}" if programs else ""
        left_out = sorted({name for c in alike.values() for name in c.left_out})
        rule = f"columns{by} are no features ({listing(left_out, 8)}): left out"
        if any(c.seen is not None for c in alike.values()):
            rule += ", and rows that the tracker was not sure of count as not observed"
        moved = [v for v in ordered if alike[v].feature_names != columns]
        other = [v for v in ordered if alike[v].left_out]
        self._note_first(modality, moved, "columns in another order than most: sorted by names")
        self._note_first(modality, other, rule)

    def _note_first(self, modality: str, videos: list[str], what: str) -> None:
        """Notes a repair at the first of some files, with the number of the others."""
        if videos:
            others = f" (and {len(videos) - 1} more files)" if len(videos) > 1 else ""
            self.note(REPAIRED, self.files[modality][videos[0]], "", f"{what}{others}")

    def _choose_dtypes(self, widths: dict[str, dict[str, int]]) -> None:
        """Sets `dtypes` by the values of all usable files."""
        unusable = self.unusable()
        for modality, files in self.files.items():
            spread = Spread(self.dims[modality])
            for video, width in widths[modality].items():
                if width == self.dims[modality] and video not in unusable:
                    source = self.rows(modality, video)
                    assert source is not None
                    spread.add(source.values)
            fault = spread.fault_of_float16()
            self.dtypes[modality] = "float32" if fault else "float16"
            if fault:
                path = next(iter(files.values())).parent
                self.note(REPAIRED, path, "", f"float16 does not hold {fault}: stored as float32")

    def _check_video(
        self,
        video: str,
        num_frames: int,
        widths: dict[str, dict[str, int]],
        rows: dict[tuple[str, str], int],
    ) -> None:
        if not any(video in files for files in self.files.values()):
            self.note(UNUSABLE, self.features, video, f"no features of video {video!r}")
            return
        for modality, files in self.files.items():
            path = files.get(video)
            kinds = self.kinds[modality]
            if path is None:
                message = f"no {modality} features of {video!r}: masked in the whole video"
                self.note(REPAIRED, self.features / modality, video, message)
                kinds["none: masked"] += 1
                continue
            width = widths[modality].get(video)
            if width is not None and width != self.dims[modality]:
                expected = f"{width} features a row, the others have {self.dims[modality]}"
                self.note(UNUSABLE, path, video, expected)
                kinds["unusable"] += 1
            elif (modality, video) in rows:
                if self.readings[modality].rate is not None:
                    kinds["interpolated"] += 1
                else:
                    kinds[self._check_length(path, video, rows[modality, video], num_frames)] += 1

    def _check_length(self, path: Path, video: str, rows: int, num_frames: int) -> str:
        """Applies the rules for .npy files without a rate; returns the one that fits."""
        if rows == num_frames:
            return "row = frame"
        what = f"{rows} rows for {num_frames} frames"
        if abs(rows - num_frames) > max(TOLERATED_FRAMES, TOLERATED_SHARE * num_frames):
            rate_file = Path(path.parent.name) / "rate.txt"
            message = f"{what}: needs --rate {path.parent.name}=HZ (or {rate_file})"
            self.note(UNUSABLE, path, video, message)
            return "unusable"
        if rows > num_frames:
            self.note(REPAIRED, path, video, f"{what}: the last {rows - num_frames} are unused")
            return "rows too many"
        self.note(REPAIRED, path, video, f"{what}: the last {num_frames - rows} frames are masked")
        return "rows too few"

    def show(self) -> None:
        """Prints the table and the problems."""
        table = Table("", *self.kinds)
        table.add_row("features", *(str(dim) for dim in self.dims.values()))
        table.add_row("files", *(str(len(files)) for files in self.files.values()))
        for rule in RULES:
            table.add_row(rule, *(str(kinds[rule]) for kinds in self.kinds.values()))
        console.print(table)
        for severity in (UNUSABLE, REPAIRED, NOTE):
            problems = [p for p in self.problems if p.severity == severity]
            if problems:
                say(f"{severity} ({len(problems):,}):")
            for problem in problems[: None if severity == UNUSABLE else 200]:
                say(f"  {problem}")
            if severity != UNUSABLE and len(problems) > 200:
                say(f"  … and {len(problems) - 200:,} more")

    def rows(self, modality: str, video: str) -> FeatureRows | None:
        """The features of one video, None without a file; reads .csv files whole."""
        path = self.files[modality].get(video)
        if path is None:
            return None
        if path.suffix.lower() != ".npy":
            source = self._table(modality, path).ordered(self.columns[modality])
            if self.grids[video].whole_clip and len(source.values) == 1:
                source = FeatureRows(source.values, None)
            return source
        values = open_npy(path)
        rate = self.readings[modality].rate
        return FeatureRows(values, None if rate is None else np.arange(len(values)) / rate)

    def specs(self) -> dict[str, ModalitySpec]:
        """Describes the features for the store, and the extra targets behind them."""
        specs: dict[str, ModalitySpec] = {}
        for modality, files in self.files.items():
            spec = {
                "encoder": "imported",
                "untrained": False,
                "files": len(files),
                "rate_hz": self.readings[modality].rate,
                # As in older stores, which may be continued.
                "preprocessing": "rows of .npy files by index, or linear interpolation in time "
                "where a rate or times are given",
            }
            if modality in self.columns:
                spec["columns"] = list(self.columns[modality])
            if modality in self.programs:
                spec["program"] = self.programs[modality]
            specs[modality] = ModalitySpec(
                modality, self.dims[modality], spec, self.dtypes[modality]
            )
        extra = {n: ModalitySpec.of_target(t) for n, t in self.extra_targets.items()}
        return specs | extra
