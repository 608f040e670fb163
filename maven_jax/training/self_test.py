"""What `maven-jax doctor` runs: a store, a training, a checkpoint and an evaluation, all tiny."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from maven_jax import recipes
from maven_jax.progress import console
from maven_jax.recipes import Config
from maven_jax.runs.evaluate import evaluate
from maven_jax.store.schema import Frames, ModalitySpec
from maven_jax.store.writer import PlannedVideo, StoreWriter
from maven_jax.training.train import train

_WIDTHS = {"visual": 8, "audio": 6}
_FPS = 25.0


def write_store(path: Path, *, videos: int, frames: int, seed: int) -> None:
    """A store whose features hold the targets in a random projection, with noise.

    Args:
        path: folder to make.
        videos: of training; half as many to validate on.
        frames: of each.
        seed: of everything that is drawn.
    """
    rng = np.random.default_rng(seed)
    names = [("train", i) for i in range(videos)] + [("validation", i) for i in range(videos // 2)]
    planned = [PlannedVideo(f"{split}_{i}", split, frames, f"{split}_{i}") for split, i in names]
    modalities = {
        name: ModalitySpec(name, dim, {"encoder": "none", "untrained": True})
        for name, dim in _WIDTHS.items()
    }
    mixing = {name: rng.normal(size=(2, dim)) for name, dim in _WIDTHS.items()}
    writer = StoreWriter(
        path, videos=planned, modalities=modalities, provenance={"made_by": "doctor"}
    )
    for video in planned:
        time_s = np.arange(frames) / _FPS
        targets = 0.8 * np.sin(time_s[:, None] * rng.uniform(0.5, 2.0, 2) + rng.uniform(0, 6, 2))
        everywhere = np.ones(frames, bool)
        with writer.video(video.video, _FPS, frames / _FPS) as out:
            out.append(
                Frames(
                    time_s=time_s,
                    targets=targets.astype(np.float32),
                    target_mask=everywhere,
                    segment_id=np.full(frames, -1, np.int32),
                    features={
                        name: (targets @ mix + 0.3 * rng.normal(size=(frames, mix.shape[1])))
                        for name, mix in mixing.items()
                    },
                    masks=dict.fromkeys(_WIDTHS, everywhere),
                )
            )
    writer.finish()


def recipe(store: Path, epochs: float) -> Config:
    """A per-frame network on that store."""
    config = recipes.load("baseline:concat")
    config.data.store = str(store)
    config.data.synthetic = None
    config.data.modalities = tuple(_WIDTHS)
    config.data.window.update(length=50, hop=50)
    config.model.update(embed_dim=16, hidden_dims=(32,))
    config.optimizer.learning_rate = 1e-2
    config.train.update(
        batch_size=8, num_epochs=epochs, eval_every_epochs=epochs, log_every_steps=1000
    )
    config.eval.batch_size = 8
    config.eval.hop = 50
    config.checkpoint.every_steps = 1000
    return config


def train_and_score(place: Path) -> tuple[float, float]:
    """Validation ccc after one step, and of the checkpoint at the end of a longer run.

    Args:
        place: an empty folder.
    """
    with _quiet():
        write_store(place / "store", videos=8, frames=200, seed=0)
        first = train(recipe(place / "store", 0.25), place / "first")
        train(recipe(place / "store", 12.0), place / "run")
        scores = evaluate(place / "run", "validation")
    assert first is not None
    return first["ccc"], scores["ccc"]


@contextmanager
def _quiet() -> Iterator[None]:
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
