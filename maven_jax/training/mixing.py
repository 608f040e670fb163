"""Stores that a recipe mixes into the training data (`data.mix`)."""

from __future__ import annotations

from typing import Any

from maven_jax import recipes
from maven_jax.data.mixture import PARTS, Mixture
from maven_jax.data.pipeline import WindowSource
from maven_jax.data.windows import Windows, make_windows
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment, check_features, feature_kinds
from maven_jax.progress import say
from maven_jax.store.reader import Store

MAX_WEIGHT = 1000


def open_mixed(experiment: Experiment) -> dict[str, Store]:
    """The stores of `data.mix` by name, known to hold features of the same kinds as the main one.

    Raises:
        UserError: impossible keys or values, no store there, other encoders, or what the run is
            evaluated on.
    """
    return {
        name: recipes.call(_open_one, section, f"data.mix.{name}", name=name, experiment=experiment)
        for name, section in experiment.config.data.mix.items()
    }


def _open_one(store: str, split: str, weight: Any, *, name: str, experiment: Experiment) -> Store:
    key = f"config.data.mix.{name}"
    config, main = experiment.config, experiment.store
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    parts = weight * PARTS if number else 0.0
    if not 1 <= parts <= MAX_WEIGHT * PARTS or abs(parts - round(parts)) > 1e-6:
        raise UserError(
            f"{key}.weight={weight!r}: expected the number of windows for each one of the main "
            f"store, a multiple of {1 / PARTS} up to {MAX_WEIGHT}"
        )
    mixed = Store(store)
    mixed.check_split(split, f"{key}: ")
    # The validation videos of a fold lie in both splits.
    held_out = split == config.data.eval_split or experiment.holds_back
    if mixed.fingerprint == main.fingerprint and held_out:
        raise UserError(f"{key}: split {split} of {store} is what the run is evaluated on")
    for modality, spec in experiment.modalities.items():
        mixed.check_modality(modality, f"{key}: ")
        dtype = mixed.modalities[modality].dtype
        if dtype != spec.dtype:
            raise UserError(f"{key}: {store} holds {modality} as {dtype}, not as {spec.dtype}")
    try:
        check_features(mixed, feature_kinds(experiment.modalities))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    return mixed


def training_source(
    experiment: Experiment, windows: Windows, mixed: dict[str, Store]
) -> WindowSource | Mixture:
    """What training batches are read from: the windows, with those of `data.mix` among them.

    Args:
        experiment: what is trained.
        windows: of its training split.
        mixed: what `open_mixed` returned.

    Raises:
        UserError: a split to be mixed in has no annotated videos.
    """
    config = experiment.config
    main = experiment.source(windows)
    if not mixed:
        return main
    others, weights = {}, {}
    for name, store in mixed.items():
        section = config.data.mix[name]
        entries = store.videos(section.split)
        try:
            cut = recipes.call(
                make_windows, config.data.window, "data.window", entries=entries, annotated=True
            )
        except UserError as error:
            raise UserError(f"config.data.mix.{name}: {error}") from None
        others[name], weights[name] = experiment.source(cut, store), float(section.weight)
        say(
            f"mixed in: {name}, {len(cut):,} windows from {len(cut.entries)} videos of "
            f"{section.store}, {section.weight:g} for each of the main store"
        )
    return Mixture(main, others, weights)
