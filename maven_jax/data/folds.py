"""Cross-validation: which videos a fold trains on, and which it holds out.

`data.folds=K` cuts the annotated videos of the splits `train` and `validation` into K parts of
whole recordings; with `data.fold_groups` no group (a person, a language) is on both sides either.
Without both keys the folds are those of RJCMA and its relatives (ABAW6, 2024): fold 0 is the
official split, fold k is validated on the k-th of five slices of the training list, and trained on
the other slices and the official validation set.

A store needs no rewriting for that: it holds the sums of every video, and the statistics of any set
of videos follow from them.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maven_jax.errors import UserError, listing
from maven_jax.inputs import read_file
from maven_jax.store.moments import Moments, RunningMoments
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry

NUM_SLICES = 5
NUM_FOLDS = 1 + NUM_SLICES
_SPLITS = ("train", "validation")
_COLUMNS = ("video", "group")


@dataclass(frozen=True)
class Cut:
    """How a store is cut into folds.

    Attributes:
        videos: all that take part, in the order of the store.
        parts: of each fold, the videos that it holds out.
        notes: what was odd in the file of groups, in sentences.
    """

    videos: tuple[VideoEntry, ...]
    parts: tuple[tuple[VideoEntry, ...], ...]
    notes: tuple[str, ...] = ()


def is_official(fold: int | None, folds: int | None, groups: str | None) -> bool:
    """Whether a recipe trains on the store's own training split: without a fold, or by ABAW's 0."""
    return fold is None or (fold == 0 and folds is None and groups is None)


def fold_entries(
    store: Store, fold: int, folds: int | None = None, groups: str | None = None
) -> dict[str, tuple[VideoEntry, ...]]:
    """The videos of a fold: a part, and all videos of other recordings.

    Args:
        store: whose splits `train` and `validation` are cut.
        fold: which part is held out, from 0.
        folds: see `cut`.
        groups: see `cut`.

    Returns:
        `train` and `validation`: videos, each with the split of the store that it lies in.

    Raises:
        UserError: no such fold, or see `cut`.
    """
    whole = isinstance(fold, int) and not isinstance(fold, bool)
    own = folds is not None or groups is not None
    if not own and not (whole and 0 <= fold < NUM_FOLDS):
        raise UserError(f"config.data.fold={fold!r}: expected 0 to {NUM_SLICES} or None")
    if is_official(fold, folds, groups):
        _check_splits(store)
        return {split: store.videos(split) for split in _SPLITS}
    made = cut(store, folds, groups)
    if not (whole and 0 <= fold < len(made.parts)):
        raise UserError(
            f"config.data.fold={fold!r}: expected 0 to {len(made.parts) - 1}, as there are "
            f"{len(made.parts)} folds"
        )
    held_out = made.parts[fold]
    stems = {entry.stem for entry in held_out}
    rest = tuple(entry for entry in made.videos if entry.stem not in stems)
    return {"train": rest, "validation": held_out}


def cut(store: Store, folds: int | None = None, groups: str | None = None) -> Cut:
    """Cuts the videos of the splits `train` and `validation` into the parts that folds hold out.

    Two faces of one video (one `stem`) are never on both sides of a fold, nor are videos of one
    group. The parts have about equally many annotated frames: recordings or groups are dealt out
    one by one, the longest first, each to the part with the fewest frames so far. ABAW's slices
    are runs of the store's training list instead, about equal in videos.

    Args:
        store: to cut.
        folds: number of parts; None for one for each group, or without groups for ABAW's.
        groups: a CSV with the columns `video` and `group`; None for none.

    Raises:
        UserError: a split is missing, a file that cannot be used, a video that is not in it, or
            fewer recordings or groups than parts.
    """
    if folds is None and groups is None:
        _check_splits(store)
        official, validation = store.videos("train"), store.videos("validation")
        return Cut((*official, *validation), (validation, *_slices(store, official)))
    splits = [split for split in _SPLITS if split in store.splits]
    videos = tuple(e for split in splits for e in store.videos(split) if e.num_annotated)
    table = None if groups is None else read_groups(Path(groups))
    units, notes = _units(videos, table)
    wanted = len(units) if folds is None else folds
    if not 2 <= wanted <= len(units):
        what = "recordings" if groups is None else f"groups ({groups})"
        raise UserError(
            f"{store.path}: {max(wanted, 2)} folds of {len(units)} {what} cannot be cut; fewer "
            "config.data.folds, or more data"
        )
    if others := sorted((table or {}).keys() - {e.video for e in videos}):
        notes += (f"{groups}: {len(others)} of its videos take no part: {listing(others)}",)
    if folds is not None:
        units = _dealt(units, folds)
    order = {entry.video: i for i, entry in enumerate(videos)}
    parts = (tuple(sorted(unit, key=lambda e: order[e.video])) for unit in units)
    return Cut(videos, tuple(parts), notes)


def digest_of(entries: Sequence[VideoEntry]) -> str:
    """SHA-256 of the names of some videos: what tells whether a fold is still the same."""
    return hashlib.sha256("\0".join(sorted(e.video for e in entries)).encode()).hexdigest()


def read_groups(path: Path) -> dict[str, str]:
    """Video -> group, from a CSV with the columns `video` and `group`; others do not count.

    Raises:
        UserError: it cannot be read, lacks a column, or says nothing or two things of a video.
    """
    text = read_file(path, "a CSV with the columns video and group").decode("utf-8-sig", "replace")
    reader = csv.DictReader(text.splitlines())
    groups: dict[str, str] = {}
    try:
        columns = reader.fieldnames or ()
        if lacking := [c for c in _COLUMNS if c not in columns]:
            raise UserError(
                f"{path}: no column {listing(lacking)}; expected the columns video,group"
            )
        for row in reader:
            video, group = ((row[c] or "").strip() for c in _COLUMNS)
            if not video and not group:
                continue
            if not video or not group:
                raise UserError(f"{path}:{reader.line_num}: expected a video and its group")
            if groups.setdefault(video, group) != group:
                raise UserError(
                    f"{path}:{reader.line_num}: {video} is in group {groups[video]} already"
                )
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: {error}") from None
    return groups


def _check_splits(store: Store) -> None:
    for split in _SPLITS:
        store.check_split(split, "config.data.fold: ")


def _units(
    videos: Sequence[VideoEntry], groups: Mapping[str, str] | None
) -> tuple[list[list[VideoEntry]], tuple[str, ...]]:
    """Videos that stay together, sorted by name of group or recording; and notes.

    Groups with a recording in common (two people in one picture) stay together.
    """
    if groups is None:
        together = {entry.stem: {entry.stem} for entry in videos}
    else:
        if lacking := [e.video for e in videos if e.video not in groups]:
            raise UserError(
                f"config.data.fold_groups: no group for {listing(lacking)}; "
                "each annotated video of train and validation needs a row"
            )
        together = _connected([(e.stem, groups[e.video]) for e in videos])
    units: dict[tuple[str, ...], list[VideoEntry]] = {}
    for entry in videos:
        units.setdefault(tuple(sorted(together[entry.stem])), []).append(entry)
    joined = [" and ".join(names) for names in sorted(units) if len(names) > 1]
    notes = (f"groups that share a recording stay together: {listing(joined)}",) if joined else ()
    return [units[names] for names in sorted(units)], notes


def _connected(pairs: Sequence[tuple[str, str]]) -> dict[str, set[str]]:
    """Stem -> its groups, and those that are tied to them by other stems."""
    groups_of: dict[str, set[str]] = {}
    for stem, group in pairs:
        groups_of.setdefault(stem, set()).add(group)
    tied: dict[str, set[str]] = {group: {group} for _, group in pairs}
    for names in groups_of.values():
        union = set().union(*(tied[name] for name in names))
        for name in union:
            tied[name] = union
    return {stem: tied[next(iter(names))] for stem, names in groups_of.items()}


def _dealt(units: Sequence[Sequence[VideoEntry]], count: int) -> list[list[VideoEntry]]:
    """Units dealt out to parts of about equally many annotated frames, the longest first."""
    frames = [sum(entry.num_annotated for entry in unit) for unit in units]
    totals = [0] * count
    parts: list[list[VideoEntry]] = [[] for _ in range(count)]
    for i in sorted(range(len(units)), key=lambda i: (-frames[i], i)):
        smallest = totals.index(min(totals))
        totals[smallest] += frames[i]
        parts[smallest] += units[i]
    return parts


def _slices(store: Store, entries: Sequence[VideoEntry]) -> list[tuple[VideoEntry, ...]]:
    """Cuts the list into five runs of whole stems, about equal in videos."""
    stems: dict[str, list[VideoEntry]] = {}
    for entry in entries:
        stems.setdefault(entry.stem, []).append(entry)
    if len(stems) < NUM_SLICES:
        raise UserError(
            f"{store.path}: {NUM_SLICES} slices of {len(stems)} training videos cannot be cut; "
            "config.data.fold=0 is the official split"
        )
    slices: list[list[VideoEntry]] = [[] for _ in range(NUM_SLICES)]
    before = 0
    for num_left, faces in zip(range(len(stems), 0, -1), stems.values()):
        middle = before + len(faces) / 2
        index = int(middle * NUM_SLICES / len(entries))
        # No slice may stay empty, however many faces a stem has.
        first_empty = next((i for i, s in enumerate(slices) if not s), NUM_SLICES)
        index = max(min(index, first_empty), NUM_SLICES - num_left)
        slices[index] += faces
        before += len(faces)
    return [tuple(s) for s in slices]


def fold_statistics(store: Store, entries: Sequence[VideoEntry]) -> dict[str, Moments]:
    """Modality or `targets` -> moments over the observed (annotated) frames of some videos.

    For the official training list these are `store.statistics`, bit for bit.

    Raises:
        UserError: a file of the store's folder `index` is missing or damaged.
    """
    running = {name: RunningMoments(len(m.mean)) for name, m in store.statistics.items()}
    for entry in entries:
        sums = store.video_sums(entry)
        for name, moments in running.items():
            moments.merge_json(sums[name])
    return {name: moments.result() for name, moments in running.items()}
