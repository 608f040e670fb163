"""Where the parts of Aff-Wild2 lie: in its layout, or as its archives were unpacked.

| part | taken | also taken |
|---|---|---|
| annotations | `annotations/VA_Estimation_Challenge` | any folder with `Train_Set` or
  `Training_Set`, and `Validation_Set`, whose files begin with `valence,arousal` |
| crops | `cropped_aligned` | every folder whose name begins with `cropped_aligned`; where there is
  none, with `cropped` |
| videos | `videos` | folders whose names begin with `batch`, `new_vid`, `vid` or `raw` |
| expressions, action units | folders with those of the splits whose names begin with `EXPR` or
  `AU_`: of videos that the annotations above have | |
| sound, words | `audio`, `transcripts` | |

Each may lie up to four folders deep, as archives do that bring a folder of their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.corpus.extra_targets import FOLDERS
from maven_jax.errors import UserError, listing
from maven_jax.media.problems import printable, relative

ANNOTATIONS = Path("annotations/VA_Estimation_Challenge")
SPLIT_FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}
_SPLIT_NAMES = {"train": ("train_set", "training_set"), "validation": ("validation_set",)}
_MEDIA = re.compile(r"(?:videos?|vids?|batch|new_vid|raw)[\w .-]*", re.IGNORECASE)
_ALIGNED, _CROPPED = "cropped_aligned", "cropped"
_HEADER = "valence,arousal"
_DEEPEST, _MOST_FOLDERS = 4, 20_000
LAYOUT = (
    "expected ROOT/annotations/VA_Estimation_Challenge/{Train_Set,Validation_Set}/<video>.txt, "
    "ROOT/cropped_aligned/<video>/00001.jpg, ROOT/videos/**/<video>.mp4"
)


@dataclass
class Places:
    """The folders of a corpus, the usual one first.

    Attributes:
        annotations: the folder that holds those of the splits, None if there is none.
        splits: split -> the folder of its annotations, as far as they are there.
        crops: folders that hold a folder for each video.
        media: folders with videos at any depth.
        audio, transcripts: folders of files.
        extra: extra target -> folders of its annotations, those of all splits.
        notes: (folder, what was made of it) where it is not the usual one.
    """

    annotations: Path | None = None
    splits: dict[str, Path] = field(default_factory=dict)
    crops: list[Path] = field(default_factory=list)
    media: list[Path] = field(default_factory=list)
    audio: list[Path] = field(default_factory=list)
    transcripts: list[Path] = field(default_factory=list)
    extra: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[tuple[Path, str]] = field(default_factory=list)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones, links and those of archivers."""
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [folder / n for n in sorted(names) if not n.startswith((".", "__MACOSX"))]


def _walk(root: Path) -> Iterator[Path]:
    """Folders below the root, the less deep first; those within crops are no places."""
    level, count = [root], 0
    for _ in range(_DEEPEST):
        level = [sub for folder in level for sub in _folders(folder) if not _is_video(folder, sub)]
        count += len(level)
        if count > _MOST_FOLDERS:
            return
        yield from level


def _is_video(folder: Path, sub: Path) -> bool:
    """Whether a folder within one of crops belongs to a video."""
    inside = folder.name.lower().startswith(_CROPPED)
    return inside and not sub.name.lower().startswith((_CROPPED, "batch"))


def _splits_in(folder: Path) -> dict[str, Path]:
    """Split -> the folder of its annotations of valence and arousal."""
    own = {sub.name.lower(): sub for sub in _folders(folder)}
    return {
        split: own[name] for split, names in _SPLIT_NAMES.items() for name in names if name in own
    }


def _is_valence_arousal(folder: Path) -> bool:
    """Whether the annotations in a split's folder are of valence and arousal."""
    first = min(folder.glob("*.txt"), default=None)
    if first is None or not first.is_file():
        return False
    try:
        with open(first, "rb") as file:
            return file.readline(64).decode("utf-8-sig").strip().lower() == _HEADER
    except (OSError, UnicodeDecodeError):
        return False


def _find_annotations(root: Path, folders: list[Path], places: Places) -> None:
    usual = root / ANNOTATIONS
    sets = {}
    for folder in folders:
        splits = _splits_in(folder)
        if folder != usual and any(map(_is_valence_arousal, splits.values())):
            sets[folder] = splits
    if usual.is_dir():
        places.annotations, places.splits = usual, _splits_in(usual)
        for folder in sets:
            places.notes.append((folder, f"not used: {ANNOTATIONS} goes before it"))
        return
    if len(sets) > 1:
        names = listing([relative(folder, root) for folder in sets], 6)
        raise UserError(
            f"{root}: annotations of several years: {names}; rename one to {ANNOTATIONS}"
        )
    for folder, splits in sets.items():
        places.annotations, places.splits = folder, splits
        places.notes.append((folder, f"taken for {ANNOTATIONS}"))


def find_places(root: Path) -> Places:
    """The parts of a corpus, wherever in it they lie.

    Raises:
        UserError: annotations of several years lie side by side.
    """
    folders, places = list(_walk(root)), Places()
    _find_annotations(root, folders, places)
    for folder in folders:
        for name, beginning in FOLDERS.items():
            if folder.name.lower().startswith(beginning) and (splits := _splits_in(folder)):
                places.extra.setdefault(name, []).extend(splits.values())
                places.notes.append((folder, f"taken for annotations of {name}"))
    cropped = [f for f in folders if f.name.lower().startswith(_CROPPED)]
    # An archive's own folder of the same name, which holds folders of crops alone.
    cropped = [f for f in cropped if not any(other.parent == f for other in cropped)]
    aligned = [f for f in cropped if any(_is_aligned(p) for p in (f, *f.parents))]
    for folder in cropped:
        if aligned and folder not in aligned:
            places.notes.append((folder, "not used: aligned crops go before it"))
    places.crops = aligned or cropped
    usual = {"audio": places.audio, "transcripts": places.transcripts}
    taken = [*places.crops, *cropped, *([places.annotations] if places.annotations else [])]
    for folder in folders:
        within = any(folder.is_relative_to(p) for p in (*taken, *places.media))
        if folder.name in usual and not within:
            usual[folder.name].append(folder)
        elif _MEDIA.fullmatch(folder.name) and not within:
            places.media.append(folder)
    for folder in places.crops:
        if folder != root / _ALIGNED:
            places.notes.append((folder, "taken for a folder of crops"))
    for folder in places.media:
        if folder != root / "videos":
            places.notes.append((folder, "taken for a folder of videos"))
    return places


def _is_aligned(folder: Path) -> bool:
    return folder.name.lower().startswith(_ALIGNED)


def name_absent(root: Path, absent: list[str]) -> UserError:
    """The error for parts that a corpus lacks; it names what is there instead."""
    there = [printable(folder.name, 40) for folder in _folders(root)]
    has = f"it has {listing(there, 8)}" if there else "it has no folders"
    return UserError(f"{root}: no folder {' and '.join(absent)}; {has}; {LAYOUT}")
