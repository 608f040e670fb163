"""Before the first frame is encoded: the corpus checked, the store planned and opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_prep.corpus.check import CorpusReport, VideoCheck, check
from data_prep.corpus.layout import SPLITS, scan
from maven_jax.errors import UserError
from maven_jax.features.reader import Encoders, open_encoders
from maven_jax.media.problems import UNUSABLE
from maven_jax.progress import say
from maven_jax.store.writer import PlannedVideo, StoreWriter

MODALITIES = ("visual", "audio", "text")


class MissingVideos(UserError):
    """More videos cannot be stored than the user allows."""


def checked_videos(
    report: CorpusReport, allow_missing: int, limit_videos: int | None = None
) -> tuple[list[VideoCheck], dict[str, str]]:
    """The videos that can be stored, and the others with the reason.

    Args:
        report: of `check`.
        allow_missing: how many may be unusable.
        limit_videos: the first so many of every split only, None for all.

    Raises:
        MissingVideos: more are unusable, or none is usable.
    """
    usable = [c for c in report.usable if c.num_frames]
    reasons = dict.fromkeys(report.unusable, "unusable")
    reasons |= {c.video.name: "has no frames" for c in report.usable if not c.num_frames}
    for problem in reversed(report.problems):
        if problem.severity == UNUSABLE:
            reasons[problem.video or problem.file] = str(problem)
    if len(reasons) > allow_missing:
        raise MissingVideos(
            f"{len(reasons)} unusable (--allow-missing {allow_missing}): "
            + "; ".join(sorted(reasons))
        )
    if not usable:
        raise MissingVideos("no video of the corpus is usable")
    if limit_videos is not None:
        first = {s: [c for c in usable if c.video.split == s][:limit_videos] for s in SPLITS}
        usable = [c for split in SPLITS for c in first[split]]
    return usable, dict(sorted(reasons.items()))


def run_check(root: Path, assume_fps: float | None, workers: int) -> CorpusReport:
    """Checks the corpus and prints the report."""
    report = check(scan(root), workers=workers, assume_fps=assume_fps)
    report.show()
    return report


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
    """Everything before the first video is encoded (arguments as for `prepare`).

    Returns:
        The usable videos, the encoders, and the store with what is unusable noted in it.
    """
    usable, unusable = checked_videos(
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
    """The store of these videos and encoders; every process that is given the same opens the same.

    Args:
        out: the store.
        checks: the usable videos, in store order.
        opened: the encoders that were opened.
        encoders: the recipe that they are of.
        assume_fps: frame rate of videos whose container tells no times.

    Raises:
        UserError: the recipe's `chunk_frames` or `shard_bytes`, or see `StoreWriter`.
    """
    return StoreWriter(
        out,
        videos=[
            PlannedVideo(c.video.name, c.video.split, c.num_frames, c.video.stem) for c in checks
        ],
        modalities=opened.specs(),
        provenance={
            "encoders": _recipe_record(encoders, list(opened.present())),
            "assume_fps": assume_fps,
        },
        **_store_sizes(encoders),
    )


def _say_absent(checks: Sequence[VideoCheck], modalities: Sequence[str]) -> None:
    """Says which videos lack a whole modality, so that a corpus without transcripts is noticed."""
    sources = {"visual": "crops", "audio": "audio", "text": "transcript"}
    for name in modalities:
        field = sources.get(name, "")
        lacking = [c.video.name for c in checks if field and getattr(c.video, field) is None]
        if lacking:
            which = "all" if len(lacking) == len(checks) else f"{len(lacking)} of {len(checks)}"
            say(f"{name}: {which} videos have no {field}, it is masked there")


def _recipe_record(encoders: ConfigDict, modalities: Sequence[str]) -> dict[str, Any]:
    """The sections of the recipe that were used, as plain JSON."""
    sections = encoders.to_dict()
    return json.loads(json.dumps({name: sections[name] for name in modalities}))


def _store_sizes(encoders: ConfigDict) -> dict[str, int]:
    """Frames per record and bytes per shard, where the recipe has them.

    For those that it lacks the store's own numbers hold.
    """
    sizes = {}
    for name in ("chunk_frames", "shard_bytes"):
        if name in encoders:
            sizes[name] = encoders[name]
            if not isinstance(sizes[name], int) or sizes[name] < 1:
                raise UserError(
                    f"encoders.{name} {sizes[name]!r}: a whole number above 0 is wanted"
                )
    return sizes
