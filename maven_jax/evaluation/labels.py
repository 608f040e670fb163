"""Labels from files, for splits whose labels are not in the store, as of a challenge's test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maven_jax.errors import UserError, listing
from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.media.annotations import read_annotation
from maven_jax.progress import say


def with_labels(videos: Sequence[PredictedVideo], folder: Path) -> list[PredictedVideo]:
    """The videos with labels from `folder/<video>.txt` in place of their own.

    The files are annotations as Aff-Wild2 has them. Rows beyond the last frame do not count, and
    frames beyond the last row, and videos without a file, are not annotated; a line says how many.

    Raises:
        UserError: no video has a file, or one is not an annotation.
    """
    labelled, missing, unequal = [], [], []
    for video in videos:
        name, n = video.entry.video, len(video.predictions)
        path = folder / f"{name}.txt"
        targets, mask = np.zeros((n, 2), np.float32), np.zeros(n, bool)
        if path.is_file():
            annotation = read_annotation(path)
            rows = min(n, len(annotation.valid))
            targets[:rows], mask[:rows] = annotation.values[:rows], annotation.valid[:rows]
            if len(annotation.valid) != n:
                unequal.append(f"{name} ({len(annotation.valid):,} rows, {n:,} frames)")
        else:
            missing.append(name)
        labelled.append(dataclasses.replace(video, targets=targets, target_mask=mask))
    if len(missing) == len(videos):
        raise UserError(f"{folder}: no labels for any of {len(videos)} videos (VIDEO.txt)")
    for what, names in (("no labels for", missing), ("unequal lengths of", unequal)):
        if names:
            say(f"{folder}: {what} {len(names)} of {len(videos)} videos: {listing(names, 3)}")
    return labelled
