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
| .csv | interpolated from its time column to the frames' times, linearly, as all others |
| .csv files of a modality | features are told by their names, in any order; others: unusable |
| columns of `files.BOOKKEEPING` | no features; a row whose `success` is 0 is not observed |
| times that end elsewhere than the frames' | noted with numbers; no frame within: unusable |
| a row with NaN or infinity | not observed: frames on it or beside it are masked and counted |
| no file for this modality | the modality is masked in the whole video |

Nothing is extrapolated, and nothing is interpolated over gaps of more than three usual steps.
Memory holds one block of frames, or one whole .csv file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.table import Table

from data_prep.imports.files import (
    BOOKKEEPING,
    TOLERATED_FRAMES,
    TOLERATED_SHARE,
    CsvHeader,
    FeatureRows,
    find_features,
    find_rates,
    open_npy,
    read_csv,
    read_header,
)
from data_prep.imports.grid import Grid, read_grids
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
# Rows of the table, in this order.
RULES = (
    "row = frame",
    "rows too many",
    "rows too few",
    "interpolated",
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
        rates: modality -> rows per second of its .npy files.
        grids: all videos by name.
        dims: modality -> channels.
        columns: modality -> names of the channels, where .csv files tell them.
        problems: of all files.
        kinds: modality -> rule of `RULES` -> how many videos it applies to.
    """

    features: Path
    root: Path
    files: dict[str, dict[str, Path]]
    rates: dict[str, float]
    grids: dict[str, Grid] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)

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
        """Looks at all files' headers; fills `dims`, `columns`, `problems` and `kinds`."""
        widths: dict[str, dict[str, int]] = {}
        rows: dict[tuple[str, str], int] = {}
        for modality, files in self.files.items():
            widths[modality] = {}
            headers: dict[str, CsvHeader] = {}
            self.kinds[modality] = Counter()
            for video, path in files.items():
                if video not in self.grids:
                    self.note(NOTE, path, "", "no annotation and in no list of test videos: unused")
                    self.kinds[modality]["without annotation"] += 1
                    continue
                try:
                    if path.suffix.lower() == ".npy":
                        rows[modality, video], widths[modality][video] = open_npy(path).shape
                    else:
                        headers[video] = read_header(path)
                        widths[modality][video] = len(headers[video].features)
                except InputError as error:
                    self.problems.append(from_error(error, self.features, video))
                    self.kinds[modality]["unusable"] += 1
            if not widths[modality]:
                raise UserError(
                    f"{self.features / modality}: not one file belongs to a video with annotation"
                    if not self.unusable()
                    else f"{self.features / modality}: not one usable file: "
                    + next(iter(self.unusable().values()))
                )
            # The most frequent width, the smaller one of two that are equally frequent.
            self.dims[modality] = max(
                sorted(Counter(widths[modality].values()).items()), key=lambda item: item[1]
            )[0]
            self._compare_headers(modality, headers)
        for video, grid in self.grids.items():
            self.problems += grid.problems
            if len(grid.time_s):
                self._check_video(video, len(grid.time_s), widths, rows)

    def _compare_headers(self, modality: str, headers: dict[str, CsvHeader]) -> None:
        """Sets `columns` to the most frequent ones, which all files must have, in any order."""
        files, width = self.files[modality], self.dims[modality]
        alike = {v: h for v, h in headers.items() if len(h.features) == width}
        if not alike:
            return
        counts = Counter(h.features for h in alike.values())
        columns = self.columns[modality] = max(sorted(counts.items()), key=lambda kv: kv[1])[0]
        ordered = [video for video, header in alike.items() if header.fits(columns)]
        for video in alike.keys() - set(ordered):
            missing = [printable(n) for n in columns if n not in alike[video].features]
            message = f"its columns are not those of most files: {listing(missing, 3)} missing"
            message = message if missing else "columns that share a name, in another order"
            self.note(UNUSABLE, files[video], video, message)
            self.kinds[modality]["unusable"] += 1
        for videos, what in (
            (
                [v for v in ordered if alike[v].features != columns],
                "columns in another order than most: sorted by their names",
            ),
            (
                [v for v in ordered if len(alike[v].names) > width + 1],
                f"columns are no features ({', '.join(BOOKKEEPING)}): left out, and rows of "
                "success 0 count as not observed",
            ),
        ):
            if videos:
                others = f" (and {len(videos) - 1} more files)" if len(videos) > 1 else ""
                self.note(REPAIRED, files[videos[0]], "", f"{what}{others}")

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
            elif modality in self.rates or path.suffix.lower() == ".csv":
                kinds["interpolated"] += 1
            elif (modality, video) in rows:
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
        if path.suffix.lower() == ".csv":
            return read_csv(path, self.columns[modality])
        values = open_npy(path)
        rate = self.rates.get(modality)
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
                            (len(time_s), self.dims[modality]), np.float16
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
                "rate_hz": self.rates.get(modality),
                "preprocessing": "rows of .npy files by index, or linear interpolation in time "
                "where a rate or times are given",
            }
            if modality in self.columns:
                spec["columns"] = list(self.columns[modality])
            specs[modality] = ModalitySpec(modality, self.dims[modality], spec)
        return specs


def run(
    features: Path,
    root: Path,
    out: Path,
    *,
    rates: dict[str, float] | None = None,
    fps: float | int | None = None,
    allow_missing: int = 0,
    chunk_frames: int = 100,
) -> Store:
    """Imports features into a store; calling it again continues where it stopped.

    Args:
        features: folder of `<modality>/<video>.npy` or `.csv`.
        root: folder with the annotations (and videos, for the times of their frames).
        out: the store's folder.
        rates: modality -> rows per second of its .npy files; they override `rate.txt`.
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
    job = _Import(features, root, files, find_rates(features, list(files), rates or {}))
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
