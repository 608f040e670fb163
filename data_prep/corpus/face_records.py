"""How the faces of one's own videos were looked for: `ROOT/face_search/<video>.json`.

Crops of another detector lie and fit otherwise, so a model is best used with that of its training.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.corpus.layout import Video
from maven_jax.inputs import read_json
from maven_jax.media.face_search import FaceSearch
from maven_jax.store.schema import FACE_SEARCH

FOLDER = "face_search"


def record_of(search: FaceSearch, detector: str, face: str) -> dict[str, Any]:
    """What is written of a video.

    Args:
        search: the options; a threshold of None is the detector's own.
        detector: which it was, in words.
        face: which face was chosen.
    """
    options = dataclasses.asdict(search)
    del options["model"]  # a name, a file or open: `detector` says which it came to
    return {"detector": detector, **options, "face": face}


def read_records(videos: Iterable[Video]) -> list[dict[str, Any]]:
    """The different ways in which videos' faces were looked for, each with its `videos`.

    Videos without a record, such as Aff-Wild2's own, are left out.

    Raises:
        UserError: a record that is none.
    """
    counts = Counter[str]()
    for video in videos:
        if video.crops is None:
            continue
        path = Path(video.crops).parents[1] / FOLDER / f"{video.name}.json"
        if path.is_file():
            record = read_json(path, "what `maven-jax corpus` writes", FACE_SEARCH)
            known = {key: record[key] for key in FACE_SEARCH}
            counts[json.dumps(known, sort_keys=True)] += 1
    return [{**json.loads(text), "videos": n} for text, n in sorted(counts.items())]
