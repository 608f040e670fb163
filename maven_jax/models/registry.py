"""Models by name, or by the file of a user's own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
from flax.core import FrozenDict

from maven_jax import own_files, recipes
from maven_jax.errors import UserError, did_you_mean
from maven_jax.models.baselines import ConcatMlp, ConstantMean
from maven_jax.models.beside_ridge import BesideRidge, RidgeBeside
from maven_jax.models.early_fusion import EarlyFusion
from maven_jax.models.end_to_end import EndToEnd
from maven_jax.models.extra_heads import WithExtraHeads, extra_targets_of
from maven_jax.models.grjca import Grjca
from maven_jax.models.hgrjca import Hgrjca
from maven_jax.models.late_fusion import LateFusion
from maven_jax.models.lfan import Lfan, LfanAbaw3
from maven_jax.models.maven import Maven
from maven_jax.models.maven_released import MavenReleased
from maven_jax.models.ras import Ras
from maven_jax.models.ridge import Ridge
from maven_jax.models.rjca import Rjca
from maven_jax.models.rjcma import Rjcma
from maven_jax.models.tagf import Tagf

MODELS: dict[str, type[nn.Module]] = {
    "maven": Maven,
    "maven_released": MavenReleased,
    "rjca": Rjca,
    "rjcma": Rjcma,
    "grjca": Grjca,
    "hgrjca": Hgrjca,
    "tagf": Tagf,
    "lfan": Lfan,
    "lfan_abaw3": LfanAbaw3,
    "ras": Ras,
    "late_fusion": LateFusion,
    "end_to_end": EndToEnd,
    "early_fusion": EarlyFusion,
    "concat_mlp": ConcatMlp,
    "ridge": Ridge,
    "constant_mean": ConstantMean,
}


def model_class(name: str) -> type[nn.Module]:
    """The class of a model.

    Args:
        name: a key of MODELS; or `path/to/file.py:Class`, a Linen module that is called as those
            are. The file is run, if the user named it: see `own_files`.

    Raises:
        UserError: no such model, a file that the user did not name, that does not run or that has
            no such class.
    """
    if own_files.is_class_in_file(name):
        return _class_of_file(own_files.allowed_file(name), name.rpartition(":")[2])
    if name not in MODELS:
        raise UserError(f"model: unknown name {name!r}{did_you_mean(name, list(MODELS))}")
    return MODELS[name]


@functools.cache  # Linen modules are compared by their class: a file is run once.
def _class_of_file(file: Path, name: str) -> type[nn.Module]:
    model = getattr(own_files.run(file, "model"), name, None)
    if not (isinstance(model, type) and issubclass(model, nn.Module)):
        raise UserError(f"model: {file} has no Linen module {name!r}")
    if "modalities" not in model.__dataclass_fields__:
        raise UserError(f"model: {file}: {name} has no attribute `modalities`")
    return model


def check_keys(section: Mapping[str, Any], where: str = "model") -> None:
    """Raises UserError unless the keys of a model, and of those within it, are its attributes.

    Args:
        section: `name` and attributes, as `create` takes them.
        where: the section's name in the recipe.
    """
    keys = dict(section)
    if not isinstance(keys.get("name"), str):
        raise UserError(f"config.{where}.name={keys.get('name')!r}: expected the name of a model")
    model = model_class(keys.pop("name"))
    ridge_beside(keys.pop("ridge", None), where)
    extra_targets_of(keys.pop("extra_targets", None))
    recipes.check_keys(model, keys, where, ("modalities", "target_mean"))
    recipes.check_attributes(model, keys, where)
    if "fusion" in keys:
        if not isinstance(keys["fusion"], Mapping):
            raise UserError(f"config.{where}.fusion={keys['fusion']!r}: expected a section")
        check_keys(keys["fusion"], f"{where}.fusion")


def ridge_beside(section: Any, where: str = "model") -> RidgeBeside | None:
    """A model's section `ridge`; None without, or if its weight is 0.

    Raises:
        UserError: a key or a value that it cannot have.
    """
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise UserError(f"config.{where}.ridge={section!r}: expected a section or None")
    recipes.check_keys(RidgeBeside, section, f"{where}.ridge")
    recipes.check_attributes(RidgeBeside, section, f"{where}.ridge")
    beside = RidgeBeside(**{key: _hashable(value) for key, value in section.items()})
    return beside if beside.weight else None


@contextlib.contextmanager
def errors_of_model() -> Iterator[None]:
    """Makes one line of whatever goes wrong where a model is built: a value that does not fit.

    Raises:
        UserError: in place of the error.
    """
    try:
        yield
    except UserError as error:
        line = " ".join(str(error).split())
        raise UserError(line if line.startswith("config.") else f"config.model: {line}") from error
    except Exception as error:  # of any kind, from wherever in the model
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        place = own_files.place_of(error)
        raise UserError(f"config.model: the model cannot be built: {place}{line}") from error


def create(
    name: str,
    *,
    modalities: Sequence[str],
    target_mean: Sequence[float] | None = None,
    ridge: Mapping[str, Any] | None = None,
    extra_targets: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Returns a model, still without parameters.

    Args:
        name: a key of MODELS, or `path/to/file.py:Class`.
        modalities: names, in the order in which the model is to use them.
        target_mean: (valence, arousal) of the training set, for models with such an attribute.
        ridge: see `RidgeBeside`; None for the model alone.
        extra_targets: see `extra_targets_of`; None for valence and arousal alone.
        **kwargs: the model's own attributes; lists become tuples, dicts frozen, and `fusion`
            (`name` and attributes) the model that it describes. An attribute that is a dataclass is
            made of keywords with the names of its fields (`recipes.key_groups`).

    Raises:
        UserError: unknown name, no modalities, or one given twice.
        TypeError: an attribute the model does not have, or lacks.
    """
    model = model_class(name)
    modalities = tuple(modalities)
    if not modalities or len(set(modalities)) < len(modalities):
        raise UserError(f"model: modalities must be one or more different names, not {modalities}")
    beside = ridge_beside(ridge)
    mean = None if target_mean is None else (float(target_mean[0]), float(target_mean[1]))
    if mean is None and (beside or "target_mean" in model.__dataclass_fields__):
        raise UserError(f"model {name}: needs target_mean, the mean of the training targets")
    if "target_mean" in model.__dataclass_fields__:
        kwargs["target_mean"] = mean
    attributes = {k: _hashable(v) for k, v in kwargs.items()}
    if "fusion" in attributes:  # a model within this one
        attributes["fusion"] = create(
            **attributes["fusion"], modalities=modalities, target_mean=target_mean
        )
    for attribute, group in recipes.key_groups(model).items():
        names = [f.name for f in dataclasses.fields(group) if f.name in attributes]
        attributes[attribute] = group(**{name: attributes.pop(name) for name in names})
    network = model(modalities=modalities, **attributes)
    if beside is not None and mean is not None:
        network = BesideRidge(modalities, network, beside.weight, beside.widths, mean)
    extra = extra_targets_of(extra_targets)
    return WithExtraHeads(modalities, network, extra) if extra else network


def _hashable(value: Any) -> Any:
    """A value as modules need it, which are hashed: lists as tuples, dicts as frozen ones."""
    if isinstance(value, Mapping):
        return FrozenDict({k: _hashable(v) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_hashable(v) for v in value)
    return value
