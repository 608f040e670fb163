"""From a recipe's sections to the parts of a run; what training and evaluation share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from maven_jax import recipes
from maven_jax.data.folds import fold_entries, fold_statistics
from maven_jax.data.pipeline import WindowSource, to_batch
from maven_jax.data.transforms import FeatureStatistics, InputTransform
from maven_jax.data.windows import Windows, make_windows, padded_lengths
from maven_jax.errors import UserError
from maven_jax.evaluation.split_predictor import Predictor
from maven_jax.evaluation.step import make_predict_step
from maven_jax.models import registry
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runtime import hosts
from maven_jax.runtime.sharding import Rules, logical_rules, make_mesh
from maven_jax.store.moments import Moments
from maven_jax.store.reader import Store
from maven_jax.store.schema import VideoEntry
from maven_jax.types import DIMENSIONS, Batch


def open_store(config: Config) -> Store:
    """The recipe's store, known to hold its modalities.

    No modalities in the recipe means all that the store has; they are filled in.

    Raises:
        UserError: no store there, or it lacks a modality.
    """
    store = Store(config.data.store)
    if not config.data.modalities:
        config.data.modalities = tuple(store.modalities)
    for key, names in (
        ("modalities", config.data.modalities),
        ("single_vector", config.data.single_vector),
    ):
        for name in names:
            store.check_modality(name, f"config.data.{key}: ")
    return store


def feature_kinds(store: Store, modalities: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What has to be the same in another store for a model to understand it: JSON."""
    return {
        m: {"dim": s.dim, "encoder": s.spec.get("encoder"), "sha256": s.spec.get("sha256")}
        for m, s in ((m, store.modalities[m]) for m in modalities)
    }


def check_features(
    store: Store, trained_on: dict[str, dict[str, Any]], *, identity: bool = True
) -> None:
    """Raises UserError if the store's features are not of the kind that a model was trained on.

    Args:
        store: whose features the model is to take.
        trained_on: `feature_kinds` of those it was trained on.
        identity: compare encoders and their weights too, not the widths alone.
    """
    for name, kind in feature_kinds(store, tuple(trained_on)).items():
        wanted = trained_on[name]
        if kind["dim"] != wanted["dim"]:
            raise UserError(
                f"{store.path}: {name} is {kind['dim']} wide there, the model takes {wanted['dim']}"
            )
        if identity and kind != wanted:
            raise UserError(
                f"{store.path}: {name} comes from another encoder or other weights than those "
                f"the model was trained on ({kind['encoder']} {str(kind['sha256'])[:12]}, "
                f"not {wanted['encoder']} {str(wanted['sha256'])[:12]})"
            )


def split_entries(store: Store, config: Config, split: str) -> tuple[VideoEntry, ...]:
    """The videos of a split; of the fold's, if the recipe has one.

    Raises:
        UserError: no such split or fold.
    """
    store.check_split(split)
    if config.data.fold is None:
        return store.videos(split)
    return fold_entries(store, config.data.fold).get(split, store.videos(split))


def training_moments(store: Store, config: Config) -> Mapping[str, Moments]:
    """Moments of the store's training videos, or of those of the recipe's fold."""
    if not config.data.fold:  # without folds, and in fold 0, the training list is the official one
        return store.statistics
    return fold_statistics(store, fold_entries(store, config.data.fold)["train"])


def split_windows(store: Store, config: Config, split: str, *, train: bool) -> Windows:
    """The windows of a split: as recipe `data.window` says; at `eval.hop` outside training.

    Raises:
        UserError: the store has no such split, or impossible window sizes.
    """
    entries = split_entries(store, config, split)
    section = recipes.plain(config.data.window)
    if not train:
        section["hop"] = config.eval.hop
    return recipes.call(make_windows, section, "data.window", entries=entries, annotated=train)


def feature_statistics(store: Store, config: Config) -> FeatureStatistics:
    """The training videos' statistics as device arrays."""
    known = training_moments(store, config)
    moments = {m: known[m] for m in config.data.modalities}
    return FeatureStatistics(
        mean={m: jnp.asarray(v.mean, jnp.float32) for m, v in moments.items()},
        std={m: jnp.asarray(v.std, jnp.float32) for m, v in moments.items()},
    )


def build_model(config: Config, store: Store) -> nn.Module:
    """The model of the recipe, for a store's features; see `create_model`."""
    valence, arousal = training_moments(store, config)["targets"].mean
    return create_model(config, (float(valence), float(arousal)))


def create_model(config: Config, target_mean: tuple[float, float]) -> nn.Module:
    """The model of the recipe.

    Args:
        config: the recipe.
        target_mean: of valence and arousal in training.

    Raises:
        UserError: unknown name, or a key that the model does not have.
    """
    section = recipes.plain(config.model)
    name = section.pop("name")
    fusion = dict(section.get("fusion", {}))
    for model, keys, where in (
        (name, section, "model"),
        (fusion.pop("name", None), fusion, "model.fusion"),
    ):
        if model is not None:
            given = ("modalities", "target_mean")
            recipes.check_keys(registry.model_class(model), keys, where, given)
    return registry.create(
        name, modalities=tuple(config.data.modalities), target_mean=target_mean, **section
    )


def trained_dimensions(config: Config) -> tuple[str, ...]:
    """The dimensions with a weight in the loss: those that the run is scored on.

    Raises:
        UserError: the loss weighs a dimension that the model does not predict.
    """
    weights = tuple(config.loss.dimension_weights)
    trained = tuple(name for name, weight in zip(DIMENSIONS, weights) if weight)
    model = config.model.get("fusion", config.model)
    predicted = tuple(model.get("dimensions", DIMENSIONS))
    missing = [name for name in trained if name not in predicted]
    if missing:
        raise UserError(
            f"config.loss.dimension_weights={weights} trains {', '.join(missing)}, which a model "
            f"with config.model.dimensions={predicted} does not predict"
        )
    return trained


def build_transform(config: Config) -> InputTransform:
    return recipes.call(InputTransform, config.inputs, "inputs")


def build_mesh(config: Config) -> tuple[Mesh, Rules]:
    """The mesh and the rules that lay parameters on it."""
    section = recipes.plain(config.mesh)
    fsdp = section.pop("fsdp")
    return recipes.call(make_mesh, section, "mesh"), logical_rules(fsdp)


def build_predictor(
    config: Config,
    store: Store,
    model: nn.Module,
    split: str,
    mesh: Mesh,
    rules: Rules,
    weights_shardings: Any,
) -> Predictor:
    """A predictor over all videos of a split."""
    windows = split_windows(store, config, split, train=False)
    # Some models are tied to the number of frames that they were trained with.
    tied = "window_length" in config.model
    lengths = padded_lengths("" if tied else config.data.window.kind, windows.length)
    step = make_predict_step(
        model,
        build_transform(config),
        mesh=mesh,
        rules=rules,
        shardings=weights_shardings,
        seed=config.seed,
    )
    return Predictor(
        step,
        store,
        windows,
        modalities=tuple(config.data.modalities),
        single_vector=dict(config.data.single_vector),
        batch_size=config.eval.batch_size,
        num_threads=config.data.num_threads,
        mesh=mesh,
        smooth_frames=tuple(config.eval.smooth_frames),
        lengths=lengths,
    )


def say_what_runs(store: Store, config: Config, mesh: Mesh) -> None:
    """Start-up lines: devices, data, and whether the features mean anything."""
    say(hosts.describe(mesh, config.train.batch_size))
    widths = ", ".join(f"{m} ({store.modalities[m].dim})" for m in config.data.modalities)
    say(f"store {config.data.store}: {widths}")
    untrained = [m for m in config.data.modalities if store.modalities[m].untrained]
    if untrained:
        say(f"note: the encoders of {', '.join(untrained)} are untrained (random weights)")


def example_batch(store: Store, config: Config, split: str) -> Batch:
    """A batch of one window, for its shapes."""
    source = WindowSource(
        store,
        split_windows(store, config, split, train=False),
        tuple(config.data.modalities),
        dict(config.data.single_vector),
    )
    return to_batch(jax.tree.map(lambda x: np.asarray(x)[None], source[0]))
