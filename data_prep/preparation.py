"""Before the first frame is encoded: the corpus checked, the store planned and opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_prep.corpus.check import run_check, usable_videos
from data_prep.corpus.check_video import VideoCheck
from data_prep.corpus.extra_targets import settled
from data_prep.corpus.face_records import read_records
from maven_jax.errors import UserError
from maven_jax.features.reader import MODALITIES, Encoders, open_encoders
from maven_jax.progress import say
from maven_jax.store.schema import ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter


def begin(
    root: Path,
    out: Path,
    encoders: ConfigDict,
    *,
    modalities: Sequence[str] | None,
    allow_missing: int,
    assume_fps: float | None,
    workers: int,
    limit_videos: int | None,
) -> tuple[list[VideoCheck], Encoders, StoreWriter]:
    """Checks the corpus, opens the encoders and the store; arguments as for `prepare`.

    Returns:
        The usable videos, the encoders, and the store, with the unusable videos noted in it.
    """
    usable, unusable = usable_videos(
        run_check(root, assume_fps, workers), allow_missing, limit_videos
    )
    if modalities is None:
        modalities = [name for name in MODALITIES if name in encoders]
    ordered = [name for name in MODALITIES if name in modalities]
    ordered += [name for name in modalities if name not in MODALITIES]
    _say_absent(usable, ordered)
    opened = open_encoders(encoders, ordered, workers)
    writer = open_writer(out, usable, opened, encoders, assume_fps)
    for name, reason in unusable.items():
        writer.drop(name, reason)
    return usable, opened, writer


def open_writer(
    out: Path,
    checks: Sequence[VideoCheck],
    opened: Encoders,
    encoders: ConfigDict,
    assume_fps: float | None,
) -> StoreWriter:
    """The store of these videos and encoders: the same one in every process that asks for it.

    Args:
        out: the store.
        checks: the usable videos, in store order.
        opened: the encoders.
        encoders: their recipe.
        assume_fps: frame rate of videos whose container tells no times.

    Raises:
        UserError: the recipe's `chunk_frames` or `shard_bytes` is wrong, or as `StoreWriter`.
    """
    searches = read_records(c.video for c in checks)
    extra = settled(target for check in checks for target in check.extra)
    return StoreWriter(
        out,
        videos=[
            PlannedVideo(c.video.name, c.video.split, c.num_frames, c.video.stem) for c in checks
        ],
        modalities=opened.specs() | {n: ModalitySpec.of_target(t) for n, t in extra.items()},
        provenance={
            "encoders": _recipe_record(encoders, list(opened.present())),
            "assume_fps": assume_fps,
            **({"face_search": searches} if searches else {}),
        },
        **_store_sizes(encoders),
    )


def _say_absent(checks: Sequence[VideoCheck], modalities: Sequence[str]) -> None:
    """Says which videos lack a modality, so that a corpus without transcripts is noticed."""
    sources = {"visual": "crops", "audio": "audio", "text": "transcript"}
    for name in modalities:
        field = sources.get(name, "")
        lacking = sum(bool(field) and getattr(c.video, field) is None for c in checks)
        if lacking:
            which = "all" if lacking == len(checks) else f"{lacking} of {len(checks)}"
            say(f"{name}: {which} videos have no {field}, it is masked there")


def _recipe_record(encoders: ConfigDict, modalities: Sequence[str]) -> dict[str, Any]:
    """The sections of the recipe that were used, as plain JSON."""
    sections = encoders.to_dict()
    return json.loads(json.dumps({name: sections[name] for name in modalities}))


def _store_sizes(encoders: ConfigDict) -> dict[str, int]:
    """Frames per record and bytes per shard, if the recipe sets them; the store has defaults."""
    sizes = {}
    for name in ("chunk_frames", "shard_bytes"):
        if name in encoders:
            sizes[name] = encoders[name]
            if not isinstance(sizes[name], int) or sizes[name] < 1:
                raise UserError(f"encoders.{name} {sizes[name]!r}: expected a whole number above 0")
    return sizes
