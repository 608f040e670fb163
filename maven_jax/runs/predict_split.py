"""Predictions of whole splits by a trained model, before any smoothing or calibration."""

from __future__ import annotations

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.experiment import Experiment, check_features, open_store
from maven_jax.progress import timed
from maven_jax.recipes import from_json
from maven_jax.runs.trained_model import TrainedModel
from maven_jax.store.reader import Store


def open_features(model: TrainedModel, store: str | None) -> Store:
    """The store whose features the model is to take.

    Args:
        model: the model.
        store: its folder; None for the one that it was trained on.

    Raises:
        UserError: no such store, or features of another kind than the model understands.
    """
    features = open_store(model.config.data.store, store)
    for name in model.trained_on.modalities:
        features.check_modality(name)
    # Released weights come without the names of what they were trained on.
    identity = "converted" not in model.record
    check_features(features, model.trained_on.kinds(), identity=identity)
    return features


def predict_split(
    model: TrainedModel, split: str, store: Store | str | None = None
) -> list[PredictedVideo]:
    """Valence and arousal of every frame of a split (of the run's fold), as the model gives them.

    Windows that overlap are averaged; nothing is smoothed.

    Args:
        model: the model.
        split: of the store.
        store: the features, or their folder; None for those that the model was trained on.

    Returns:
        The videos in the store's order.

    Raises:
        UserError: no such store or split, or features of another kind than the model understands.
    """
    features = store if isinstance(store, Store) else open_features(model, store)
    config = from_json(model.config.to_dict())
    config.eval.smooth_frames = (0, 0)
    experiment = Experiment(config, features, target_mean=model.trained_on.target_mean)
    if features.fingerprint == model.record.get("store_fingerprint"):
        experiment.check_held_out(model.trained_on.held_out)
    experiment = experiment.on_this_machine()
    everywhere = NamedSharding(experiment.mesh, P())
    weights = jax.device_put(model.weights, everywhere)
    predictor = experiment.predictor(split, jax.tree.map(lambda _: everywhere, weights))
    with jax.set_mesh(experiment.mesh):
        with timed("compiling the prediction step"):
            predictor.compile(weights)
        return predictor(weights, label=f"predicting {split} with step {model.step}")
