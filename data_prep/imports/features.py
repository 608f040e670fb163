"""Makes a store of features that other programs extracted: `maven-jax prepare --features DIR`.

`data_prep.imports.files` describes the files in DIR, `data_prep.imports.grid` where frames and
annotations come from. How rows become frames:

| file | rule |
|---|---|
| .npy, a rate is given | row i lies at i / rate seconds; interpolated to the frames' times |
| .npy, as many rows as frames | row i is frame i |
| .npy, up to 5 rows or 1 % more or fewer | row i is frame i; rows too many are unused, frames
  without a row are masked |
| .npy, any other number of rows | the video is unusable until a rate is given |
| .csv with times | interpolated to the frames' times, linearly, as all others |
| .csv with numbers of frames | a row belongs to its frame; interpolated between rows |
| .csv with neither | as .npy |
| .csv files of a modality | features are told by their names, in any order; others: unusable |
| columns of `columns.BOOKKEEPING` | no features; a row that its tracker doubts is not observed |
| several rows of a time | unusable until a face is chosen |
| times that end elsewhere than the frames' | noted with numbers; no frame within: unusable |
| a row with NaN or infinity | not observed: frames on it or beside it are masked and counted |
| values that float16 does not hold (`spread`) | stored as float32, and noted |
| no file for this modality | the modality is masked in the whole video |

Nothing is extrapolated, and nothing is interpolated over gaps of more than three usual steps.
Memory holds one block of frames, or one whole .csv file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.table import Table

from data_prep.imports.columns import Columns
from data_prep.imports.files import (
    TOLERATED_FRAMES,
    TOLERATED_SHARE,
    FeatureRows,
    FeatureTable,
    Reading,
    find_features,
    find_rates,
    open_npy,
    read_features,
)
from data_prep.imports.grid import Grid, read_grids
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
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter

BLOCK_FRAMES = 2000
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
class _Import:
    """An import, first checked, then stored.

    Attributes:
        features: the folder of features.
        root: the folder of annotations.
        files: modality -> video -> file.
        readings: modality -> how its files are read.
        grids: all videos by name.
        dims: modality -> channels.
        columns: modality -> names of the channels, where .csv files tell them.
        programs: modality -> what wrote its .csv files, where that is known.
        dtypes: modality -> what its values are stored as.
        problems: of all files.
        kinds: modality -> rule of `RULES` -> how many videos it applies to.
    """

    features: Path
    root: Path
    files: dict[str, dict[str, Path]]
    readings: dict[str, Reading]
    grids: dict[str, Grid] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
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
        """Looks at all files; fills `dims`, `columns`, `problems`, `kinds` and `dtypes`."""
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
            if len(grid.time_s):
                self._check_video(video, len(grid.time_s), widths, rows)
        self._choose_dtypes(widths)

    def _table(self, modality: str, path: Path) -> FeatureTable:
        if path in self._kept:
            return self._kept[path]
        table = read_features(path, self.readings[modality])
        self._kept_bytes += table.rows.values.nbytes
        if self._kept_bytes <= _KEPT_BYTES:
            self._kept[path] = table
        return table

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
            return self._table(modality, path).ordered(self.columns[modality])
        values = open_npy(path)
        rate = self.readings[modality].rate
        return FeatureRows(values, None if rate is None else np.arange(len(values)) / rate)

    def store(self, grid: Grid, writer: StoreWriter) -> None:
        """Writes one video."""
        rows = {m: self.rows(m, grid.video) for m in self.files}
        notes = [str(p) for p in self.problems if p.video == grid.video]
        for modality, source in rows.items():
            path = self.files[modality].get(grid.video)
            if source is not None and path is not None:
                odd = source.compare_extent(path, grid.time_s)
                if odd:
                    notes.append(f"{relative(path, self.features)}: {odd}")
                    say(notes[-1])
        with writer.video(grid.video, grid.fps, grid.duration_s, mask_nonfinite=True) as out:
            out.notes += notes
            for start in range(0, len(grid.time_s), BLOCK_FRAMES):
                frames = slice(start, min(start + BLOCK_FRAMES, len(grid.time_s)))
                time_s = grid.time_s[frames]
                features, masks = {}, {}
                for modality, source in rows.items():
                    if source is None:
                        features[modality] = np.zeros(
                            (len(time_s), self.dims[modality]), self.dtypes[modality]
                        )
                        masks[modality] = np.zeros(len(time_s), bool)
                    else:
                        features[modality], masks[modality] = source.at(frames, time_s)
                out.append(
                    Frames(
                        time_s=time_s,
                        targets=grid.targets[frames],
                        target_mask=grid.target_mask[frames],
                        segment_id=np.full(len(time_s), -1, np.int32),
                        features=features,
                        masks=masks,
                    )
                )

    def specs(self) -> dict[str, ModalitySpec]:
        """Describes the features for the store."""
        specs = {}
        for modality, files in self.files.items():
            spec = {
                "encoder": "imported",
                "untrained": False,
                "files": len(files),
                "rate_hz": self.readings[modality].rate,
                "preprocessing": "rows by index or number of frame, or linear interpolation "
                "in time where a rate or times are given",
            }
            if modality in self.columns:
                spec["columns"] = list(self.columns[modality])
            if modality in self.programs:
                spec["program"] = self.programs[modality]
            specs[modality] = ModalitySpec(
                modality, self.dims[modality], spec, self.dtypes[modality]
            )
        return specs


def run(
    features: Path,
    root: Path,
    out: Path,
    *,
    rates: dict[str, float] | None = None,
    readings: Mapping[str, Reading] | None = None,
    fps: float | int | None = None,
    allow_missing: int = 0,
    chunk_frames: int = 100,
) -> Store:
    """Imports features into a store; calling it again continues where it stopped.

    Args:
        features: folder of `<modality>/<video>.npy` or `.csv`.
        root: folder with the annotations (and videos, for the times of their frames).
        out: the store's folder.
        rates: modality -> rows per second of its files without times; they override `rate.txt`.
        readings: modality -> how its files are read else (their `rate` is not looked at).
        fps: frame rate of annotations without times and without a video file.
        allow_missing: how many videos may be unusable.
        chunk_frames: frames per record of the store.

    Raises:
        UserError: more than `allow_missing` videos cannot be imported (all are named), or there is
            nothing to import.
    """
    features, root = Path(features), Path(root)
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise UserError(f"--fps {fps:g}: not a frame rate")
    files = find_features(features)
    job = _Import(features, root, files, _readings(features, list(files), rates, readings))
    grids, job.problems = read_grids(root, fps)
    job.grids = {grid.video: grid for grid in grids}
    job.check()
    job.show()
    unusable = job.unusable()
    if len(unusable) > allow_missing:
        raise UserError(
            f"{len(unusable)} unusable (--allow-missing {allow_missing}): "
            + listing(list(unusable.values()), 20, "; ")
        )
    usable = [g for g in grids if g.video not in unusable]
    if not usable:
        raise UserError(f"{root}: not one video can be imported")
    writer = StoreWriter(
        Path(out),
        videos=[PlannedVideo(g.video, g.split, len(g.time_s), g.stem) for g in usable],
        modalities=job.specs(),
        chunk_frames=chunk_frames,
        provenance={"made_by": f"maven_jax {version('maven_jax')}, import of features", "fps": fps},
    )
    for video, reason in unusable.items():
        writer.drop(video, reason)
    done = [g for g in usable if writer.is_done(g.video)]
    with meter("import", float(len(usable)), "videos", initial=float(len(done))) as progress:
        for grid in usable:
            if writer.is_done(grid.video):
                continue
            try:
                job.store(grid, writer)
            except UserError as error:
                writer.drop(grid.video, str(error))
                say(f"not stored: {grid.video}: {error}")
            except OSError as error:
                # Reading raises UserErrors: this one is about the store's disk.
                raise UserError(f"{error}; the same command continues") from error
            progress.advance()
    store = writer.finish(allow_missing)
    _show_masked(store)
    return store


def _readings(
    features: Path,
    modalities: list[str],
    rates: dict[str, float] | None,
    readings: Mapping[str, Reading] | None,
) -> dict[str, Reading]:
    """How each modality is read.

    Raises:
        UserError: `rates` or `readings` are of a modality that is not there.
    """
    rates_hz = find_rates(features, modalities, rates or {})
    for name in readings or {}:
        if name not in modalities:
            raise UserError(f"no modality {name!r}; {features} has {', '.join(modalities)}")
    plain = Reading()
    return {m: replace((readings or {}).get(m, plain), rate=rates_hz.get(m)) for m in modalities}


def _show_masked(store: Store) -> None:
    """Prints how much of each modality was observed."""
    entries = [e for split in store.splits for e in store.videos(split)]
    total = sum(e.num_frames for e in entries)
    for modality in store.modalities:
        seen = sum(e.observed[modality] for e in entries)
        bad = sum(e.nonfinite[modality] for e in entries)
        say(
            f"{modality}: {seen:,} of {total:,} frames observed ({seen / total:.1%}), "
            f"{bad:,} masked for NaN or infinity"
        )
