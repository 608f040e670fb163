"""Stores that a recipe mixes into the training data (`data.mix`)."""

from __future__ import annotations

from typing import Any

from maven_jax import experiment, recipes
from maven_jax.data.mixture import PARTS, Mixture
from maven_jax.data.pipeline import WindowSource
from maven_jax.data.windows import Windows, make_windows
from maven_jax.errors import UserError
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.store.reader import Store

MAX_WEIGHT = 1000


def open_mixed(config: Config, store: Store) -> dict[str, Store]:
    """The stores of `data.mix` by name, known to hold features of the same kinds as the main one.

    Raises:
        UserError: impossible keys or values, no store there, other encoders, or what the run is
            evaluated on.
    """
    return {
        name: recipes.call(
            _open_one, section, f"data.mix.{name}", name=name, config=config, main=store
        )
        for name, section in config.data.mix.items()
    }


def _open_one(
    store: str, split: str, weight: Any, *, name: str, config: Config, main: Store
) -> Store:
    key = f"config.data.mix.{name}"
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    parts = weight * PARTS if number else 0.0
    if not 1 <= parts <= MAX_WEIGHT * PARTS or abs(parts - round(parts)) > 1e-6:
        raise UserError(
            f"{key}.weight={weight!r}: windows for each one of the main store are wanted, a "
            f"multiple of {1 / PARTS} up to {MAX_WEIGHT}"
        )
    mixed = Store(store)
    mixed.check_split(split, f"{key}: ")
    # The validation videos of a fold lie in both splits.
    held_out = split == config.data.eval_split or bool(config.data.fold)
    if mixed.fingerprint == main.fingerprint and held_out:
        raise UserError(f"{key}: split {split} of {store} is what the run is evaluated on")
    modalities = tuple(config.data.modalities)
    for modality in modalities:
        mixed.check_modality(modality, f"{key}: ")
        kinds = [s.modalities[modality].dtype for s in (mixed, main)]
        if kinds[0] != kinds[1]:
            raise UserError(f"{key}: {store} holds {modality} as {kinds[0]}, not as {kinds[1]}")
    try:
        experiment.check_features(mixed, experiment.feature_kinds(main, modalities))
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    return mixed


def training_source(
    config: Config, store: Store, windows: Windows, mixed: dict[str, Store]
) -> WindowSource | Mixture:
    """What training batches are read from: the windows, with those of `data.mix` among them.

    Args:
        config: the recipe.
        store: the main store.
        windows: of its training split.
        mixed: what `open_mixed` returned.

    Raises:
        UserError: a split to be mixed in has no annotated videos.
    """

    def source(of: Store, windows: Windows) -> WindowSource:
        single_vector: dict[str, Any] = dict(config.data.single_vector)
        return WindowSource(of, windows, tuple(config.data.modalities), single_vector)

    main = source(store, windows)
    if not mixed:
        return main
    others, weights = {}, {}
    for name, other in mixed.items():
        section = config.data.mix[name]
        entries = other.videos(section.split)
        try:
            cut = recipes.call(
                make_windows, config.data.window, "data.window", entries=entries, annotated=True
            )
        except UserError as error:
            raise UserError(f"config.data.mix.{name}: {error}") from None
        others[name], weights[name] = source(other, cut), float(section.weight)
        say(
            f"mixed in: {name}, {len(cut):,} windows from {len(cut.entries)} videos of "
            f"{section.store}, {section.weight:g} for each of the main store"
        )
    return Mixture(main, others, weights)
