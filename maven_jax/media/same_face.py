"""People over cuts: tracks, which end at every cut, joined by what their faces look like."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maven_jax.media.track_faces import FaceTrack


@dataclass(frozen=True)
class SameFace:
    """When two tracks are the same person.

    Attributes:
        least: cosine of their embeddings, from -1 to 1.
        embedding: a folder of crops -> a vector (d,) of length 1.
    """

    least: float | int
    embedding: Callable[[Path], np.ndarray]


def join_over_cuts(
    people: Sequence[FaceTrack],
    cuts: Sequence[int],
    same: SameFace,
    folder: Path,
    note: Callable[[str], None],
) -> list[FaceTrack]:
    """One track a person; the crops of the others move to that of its first track.

    Two tracks can be one person if there is a cut between them. The most similar are joined first,
    as long as nobody is twice in a picture.

    Args:
        people: tracks in the order of appearance.
        cuts: frames that follow a cut, increasing.
        same: when they are.
        folder: of the tracks' crops.
        note: called with a sentence about the similarities, of which there are some.

    Returns:
        The joined tracks and the others, in the order of appearance.
    """
    spans = [(track.frames[0], track.frames[-1]) for track in people]
    pairs = [
        (a, b)
        for a, b in itertools.permutations(range(len(people)), 2)
        if bisect.bisect(cuts, spans[a][1]) < bisect.bisect(cuts, spans[b][0])
    ]
    if not pairs:
        return list(people)
    vectors = np.stack([same.embedding(folder / f"track-{track.key}") for track in people])
    cosines = {pair: float(vectors[pair[0]] @ vectors[pair[1]]) for pair in pairs}
    person = {i: [i] for i in range(len(people))}  # of each track, all tracks of its person
    for a, b in sorted(pairs, key=lambda pair: -cosines[pair]):
        if cosines[a, b] < same.least:
            break
        if person[a] is person[b]:
            continue
        both = sorted([*person[a], *person[b]], key=lambda i: spans[i])
        if all(spans[i][1] < spans[j][0] for i, j in itertools.pairwise(both)):
            person |= dict.fromkeys(both, both)
    apart = [c for (a, b), c in cosines.items() if person[a] is not person[b]]
    one = [c for (a, b), c in cosines.items() if person[a] is person[b]]
    said = [
        f"{what} {min(some):.2f} to {max(some):.2f}"
        for what, some in (("of one person", one), ("of different people", apart))
        if some
    ]
    note(f"faces over cuts, cosines: {', '.join(said)} (one person from {same.least:g} on)")
    return [_joined([people[i] for i in person[a]], folder) for a in person if person[a][0] == a]


def _joined(tracks: Sequence[FaceTrack], folder: Path) -> FaceTrack:
    """The first track with all that the later ones have."""
    first, *others = tracks
    for track in others:
        source, target = (folder / f"track-{t.key}" for t in (track, first))
        for crop in sorted(source.iterdir()):
            os.replace(crop, target / crop.name)
        first.frames.extend(track.frames)
        first.boxes.extend(track.boxes)
        first.confidences.extend(track.confidences)
        first.last_s = track.last_s
    return first
