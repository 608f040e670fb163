"""Predictions of whole splits by a trained model, before any smoothing."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool

from maven_jax import experiment
from maven_jax.evaluation.split_predictor import Track
from maven_jax.progress import say, timed
from maven_jax.recipes import Config, from_json
from maven_jax.runs.trained_model import TrainedModel
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry

_BLOCK_FRAMES = 10_000


def open_features(model: TrainedModel, store: str | None) -> Store:
    """The store whose features the model is to take.

    Args:
        model: the model.
        store: its folder; None for the one that it was trained on.

    Raises:
        UserError: no store there, or features of another kind than the model understands.
    """
    config = from_json(model.config.to_dict())
    if store is not None:
        config.data.store = store
    opened = experiment.open_store(config)
    # Released weights come without the names of what they were trained on.
    identity = "converted" not in model.record
    experiment.check_features(opened, model.trained_on.kinds(), identity=identity)
    return opened


def raw_tracks(model: TrainedModel, store: Store, split: str) -> list[Track]:
    """Valence and arousal of every frame of a split (of the run's fold), as the model gives them.

    Args:
        model: the model.
        store: see `open_features`.
        split: of the store.

    Raises:
        UserError: no such split.
    """
    config = _for_this_machine(model.config)
    mesh, rules = experiment.build_mesh(config)
    config.eval.batch_size = -(-config.eval.batch_size // mesh.shape["data"]) * mesh.shape["data"]
    everywhere = NamedSharding(mesh, P())
    weights = jax.device_put(model.weights, everywhere)
    shardings = jax.tree.map(lambda _: everywhere, weights)
    predictor = experiment.build_predictor(
        config, store, model.module, split, mesh, rules, shardings
    )
    with jax.set_mesh(mesh):
        with timed("compiling the prediction step"):
            predictor.compile(weights)
        return predictor(weights, label=f"predicting {split} with step {model.step}")


def _for_this_machine(config: Config) -> Config:
    """The recipe on the devices that are here, without smoothing."""
    copy = from_json(config.to_dict())
    copy.mesh.update(data=-1, model=1)
    copy.eval.smooth_frames = (0, 0)
    return copy


def observed_frames(
    store: Store, entry: VideoEntry, modalities: tuple[str, ...]
) -> Bool[np.ndarray, "n"]:
    """The frames of a video in which at least one of these modalities was observed."""
    n = entry.num_frames
    if any(entry.observed[m] == n for m in modalities):
        return np.ones(n, bool)
    parts = []
    for start in range(0, n, _BLOCK_FRAMES):
        frames = store.read(entry, start, min(start + _BLOCK_FRAMES, n), modalities)
        parts.append(np.any([frames.masks[m] for m in modalities], 0))
    return np.concatenate(parts)


def fill_gaps(values: np.ndarray, known: Bool[np.ndarray, "n"]) -> np.ndarray:
    """`values` (n,) with those that are not known interpolated between their known neighbours.

    At the ends the nearest known value is held; where none is known, values stay as they are.
    """
    if known.all() or not known.any():
        return values
    at = np.arange(len(values))
    return np.interp(at, at[known], values[known]).astype(values.dtype)


def say_label(model: TrainedModel) -> None:
    """Says why a model's numbers mean nothing, if they do not."""
    if model.label:
        say(f"note: {model.source}: {model.label}")
