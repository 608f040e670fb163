"""Cross-validation: the official split and five slices of the training list (ABAW6, 2024).

RJCMA and its relatives train on six folds of Aff-Wild2. Fold 0 is the official split. Fold k is
validated on the k-th of five slices of the training list, and trained on the other slices and the
official validation set. A store needs no rewriting for that: it holds the sums of every video, and
the statistics of any set of videos follow from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from maven_jax.errors import UserError
from maven_jax.store.moments import Moments, RunningMoments
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry

NUM_SLICES = 5
NUM_FOLDS = 1 + NUM_SLICES


def fold_entries(store: Store, fold: int) -> dict[str, tuple[VideoEntry, ...]]:
    """The videos of a fold.

    The slices are runs of the store's training list, about equal in videos. Two faces of one video
    (one `stem`) are never on both sides of a fold: a slice holds both or none, and an official
    validation video is not trained on while its other face is held out.

    Args:
        store: with splits `train` and `validation`.
        fold: 0 for the official split, 1 to 5 for the slices.

    Returns:
        `train` and `validation`: videos, each with the split of the store that it lies in.

    Raises:
        UserError: no such fold, a split is missing, or fewer training videos than slices.
    """
    if not isinstance(fold, int) or isinstance(fold, bool) or not 0 <= fold < NUM_FOLDS:
        raise UserError(f"config.data.fold={fold!r}: expected 0 to {NUM_SLICES} or None")
    for split in ("train", "validation"):
        store.check_split(split, "config.data.fold: ")
    official, validation = store.videos("train"), store.videos("validation")
    if fold == 0:
        return {"train": official, "validation": validation}
    held_out = _slices(store, official)[fold - 1]
    stems = {entry.stem for entry in held_out}
    rest = [entry for entry in (*official, *validation) if entry.stem not in stems]
    return {"train": tuple(rest), "validation": held_out}


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
