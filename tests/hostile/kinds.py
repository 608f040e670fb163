"""Every kind of file that is read: a healthy example, what may be changed in it, its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile import examples, readers


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: writes a healthy example into a folder.
        changed: which of its files may be changed, a pattern for `Path.glob`; several by spaces.
        read: reads the example as the product does.
        after: what a forger does when all is changed, such as sealing it again.
        slow: takes seconds; fewer cases are run.
    """

    make: Callable[[Path], None]
    changed: str
    read: Callable[[Path], Any]
    after: Callable[[Path], None] = lambda folder: None
    slow: bool = False

    def files(self, folder: Path) -> list[Path]:
        """What may be changed, in a fixed order."""
        paths = {p for pattern in self.changed.split() for p in folder.glob(pattern)}
        return sorted(p for p in paths if p.is_file() and not p.is_symlink())

    def chosen(self, folder: Path, rng: Random) -> Path:
        """One of the files; each type of file is as likely as any other."""
        files = self.files(folder)
        suffix = rng.choice(sorted({path.suffix for path in files}))
        return rng.choice([path for path in files if path.suffix == suffix])


KINDS: dict[str, Kind] = {
    "clip": Kind(examples.make_clip, "*.mp4", readers.read_recording),
    "sound": Kind(examples.make_sound, "*.wav", readers.read_samples),
    "transcripts": Kind(examples.make_transcripts, "*", readers.read_transcripts),
    "ratings": Kind(examples.make_ratings, "*", readers.read_ratings),
    "groups": Kind(examples.make_groups, "*.csv", readers.read_fold_groups),
    "crops": Kind(examples.make_crops, "*.jpg", readers.read_crops),
    "corpus": Kind(examples.make_corpus, "**/*", readers.read_corpus),
    "own_videos": Kind(examples.make_own_videos, "mine/**/*", readers.read_own_videos),
    "features": Kind(examples.make_features, "features/**/*", readers.read_features),
    "tables": Kind(examples.make_tables, "*", readers.read_tables),
    "store": Kind(examples.make_store, "**/*", readers.read_store),
    "published_encoder": Kind(examples.make_published, "*", readers.read_published),
    "converted_encoder": Kind(examples.make_converted, "**/*", readers.read_converted),
    "state_dict": Kind(examples.make_state, "*", readers.read_state),
    "packed_weights": Kind(examples.make_packed, "*", readers.read_packed),
    "faces_network": Kind(examples.make_faces_network, "*", readers.read_faces_network),
    "keras_file": Kind(examples.make_keras, "*", readers.read_keras_file),
    "bundle": Kind(examples.make_bundle, "*", readers.read_model),
    "forged_bundle": Kind(examples.make_bundle, "*", readers.read_forged, readers.reseal),
    "checkpoint": Kind(examples.make_run, "checkpoints/**/*", readers.read_model),
    "forged_run": Kind(
        examples.make_run, "*.json checkpoints/**/*", readers.read_forged, readers.reseal
    ),
    "scores": Kind(examples.make_runs, "a/eval/*.json", readers.read_scores),
    "evaluations": Kind(examples.make_runs, "a/eval/**/*", readers.read_evaluations),
    "metrics": Kind(examples.make_run, "metrics.jsonl", readers.read_rows),
    "submission": Kind(examples.make_submission, "**/*", readers.read_submission),
    "evaluate": Kind(
        examples.make_run_and_store,
        "run/*.json run/checkpoints/**/* store/**/*",
        readers.read_evaluate,
        readers.reseal,
        slow=True,
    ),
    "predict": Kind(
        examples.make_prediction,
        "clip.mp4 words.srt bundle/*",
        readers.read_prediction,
        readers.reseal,
        slow=True,
    ),
}
