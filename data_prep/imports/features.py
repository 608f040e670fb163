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
Memory holds a block of frames, or a whole .csv file, of four videos at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from data_prep.corpus.extra_targets import extra_frames
from data_prep.imports.files import Reading, find_features, find_rates
from data_prep.imports.grid import Grid, read_grids
from data_prep.imports.job import FeatureImport
from data_prep.imports.labels import LabelOptions, label_grids
from maven_jax.errors import UserError, listing
from maven_jax.media.problems import relative
from maven_jax.progress import Meter, meter, say
from maven_jax.store.reader import Store
from maven_jax.store.schema import Frames
from maven_jax.store.writer import PlannedVideo, StoreWriter

BLOCK_FRAMES = 2000
_AT_ONCE = 4


def _store(job: FeatureImport, grid: Grid, writer: StoreWriter) -> None:
    """Writes one video."""
    rows = {m: job.rows(m, grid.video) for m in job.files}
    notes = [str(p) for p in job.problems if p.video == grid.video]
    for modality, source in rows.items():
        path = job.files[modality].get(grid.video)
        if source is not None and path is not None:
            odd = source.compare_extent(path, grid.time_s)
            if odd:
                notes.append(f"{relative(path, job.features)}: {odd}")
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
                        (len(time_s), job.dims[modality]), job.dtypes[modality]
                    )
                    masks[modality] = np.zeros(len(time_s), bool)
                else:
                    features[modality], masks[modality] = source.at(frames, time_s)
            for name, target in job.extra_targets.items():
                features[name], masks[name] = extra_frames(grid.extra.get(target), target, frames)
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


def _store_all(
    job: FeatureImport, grids: Sequence[Grid], writer: StoreWriter, progress: Meter
) -> None:
    """Writes videos, some at a time: short ones mostly wait for the disk.

    Raises:
        UserError: the store cannot be written.
    """

    def try_to_store(grid: Grid) -> str | None:
        try:
            _store(job, grid, writer)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(_AT_ONCE, "import") as pool:
        videos = {pool.submit(try_to_store, grid): grid.video for grid in grids}
        try:
            for future in as_completed(videos):
                reason = future.result()
                if reason is not None:
                    writer.drop(videos[future], reason)
                    say(f"not stored: {videos[future]}: {reason}")
                progress.advance()
        except OSError as error:
            # Reading raises UserErrors: this one is about the store's disk.
            raise UserError(f"{error}; the same command continues") from error
        finally:
            pool.shutdown(cancel_futures=True)


def run(
    features: Path,
    root: Path | None,
    out: Path,
    *,
    labels: tuple[Path, LabelOptions] | None = None,
    rates: dict[str, float] | None = None,
    readings: Mapping[str, Reading] | None = None,
    fps: float | int | None = None,
    allow_missing: int = 0,
    chunk_frames: int = 100,
) -> Store:
    """Imports features into a store; calling it again continues where it stopped.

    Args:
        features: folder of `<modality>/<video>.npy` or `.csv`.
        root: folder with the annotations (and videos, for the times of their frames); None with
            `labels`.
        labels: ratings of another form, and how they are read.
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
    features = Path(features)
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise UserError(f"--fps {fps:g}: not a frame rate")
    files = find_features(features)
    job = FeatureImport(features, files, _readings(features, list(files), rates, readings), fps)
    if labels is not None:
        grids, job.problems = label_grids(*labels)
    else:
        assert root is not None
        grids, job.problems = read_grids(Path(root), fps)
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
        raise UserError(f"{features}: not one video can be imported")
    writer = StoreWriter(
        Path(out),
        videos=[PlannedVideo(g.video, g.split, len(g.time_s), g.stem) for g in usable],
        modalities=job.specs(),
        chunk_frames=chunk_frames,
        provenance={
            "made_by": f"maven_jax {version('maven_jax')}, import of features",
            "fps": fps,
            **({} if labels is None else {"labels": labels[1].record(job.extra_targets)}),
        },
    )
    for video, reason in unusable.items():
        writer.drop(video, reason)
    waiting = [g for g in usable if not writer.is_done(g.video)]
    done = float(len(usable) - len(waiting))
    with meter("import", float(len(usable)), "videos", initial=done) as progress:
        _store_all(job, waiting, writer, progress)
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
