"""Models by name, or by the file of a user's own."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
from flax.core import FrozenDict

from maven_jax import recipes
from maven_jax.errors import UserError, did_you_mean
from maven_jax.models.baselines import ConcatMlp, ConstantMean
from maven_jax.models.end_to_end import EndToEnd
from maven_jax.models.grjca import Grjca
from maven_jax.models.hgrjca import Hgrjca
from maven_jax.models.late_fusion import LateFusion
from maven_jax.models.lfan import Lfan
from maven_jax.models.maven import Maven
from maven_jax.models.maven_released import MavenReleased
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
    "late_fusion": LateFusion,
    "end_to_end": EndToEnd,
    "concat_mlp": ConcatMlp,
    "constant_mean": ConstantMean,
}


def of_own_file(name: str) -> bool:
    """Whether a name is that of a class in a file: `path/to/file.py:Class`."""
    return ".py:" in name


def file_of(name: str) -> Path:
    """The file that a name `path/to/file.py:Class` means from where we are, links followed."""
    return Path(name.rpartition(":")[0]).resolve()


def model_class(name: str) -> type[nn.Module]:
    """The class of a model.

    Args:
        name: a key of MODELS; or `path/to/file.py:Class`, a Linen module that is called as those
            are. The file is run.

    Raises:
        UserError: no such model or file, or the file does not run or has no such class.
    """
    if of_own_file(name):
        file, _, attribute = name.rpartition(":")
        return _class_of_file(Path(file).absolute(), attribute)
    if name not in MODELS:
        raise UserError(f"model: unknown name {name!r}{did_you_mean(name, list(MODELS))}")
    return MODELS[name]


@functools.cache  # Linen modules are compared by their class: a file is run once.
def _class_of_file(file: Path, name: str) -> type[nn.Module]:
    if not file.is_file():
        raise UserError(f"model: no file {file}; the path of a model is that from where you are")
    spec = importlib.util.spec_from_file_location(f"maven_jax_model_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    try:
        spec.loader.exec_module(module)
    except (ValueError, SyntaxError, ImportError, NameError) as error:
        raise UserError(f"model: {file}: {error}") from error
    model = getattr(module, name, None)
    if not (isinstance(model, type) and issubclass(model, nn.Module)):
        raise UserError(f"model: {file} has no Linen module {name!r}")
    if "modalities" not in model.__dataclass_fields__:
        raise UserError(f"model: {file}: {name} has no attribute `modalities`")
    return model


def create(
    name: str,
    *,
    modalities: Sequence[str],
    target_mean: Sequence[float] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Returns a model, still without parameters.

    Args:
        name: a key of MODELS, or `path/to/file.py:Class`.
        modalities: names, in the order in which the model is to use them.
        target_mean: (valence, arousal) of the training set, for models with such an attribute.
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
    if "target_mean" in model.__dataclass_fields__:
        if target_mean is None:
            raise UserError(f"model {name}: needs target_mean, the mean of the training targets")
        valence, arousal = target_mean
        kwargs["target_mean"] = (float(valence), float(arousal))
    attributes = {k: _hashable(v) for k, v in kwargs.items()}
    if "fusion" in attributes:  # a model within this one
        attributes["fusion"] = create(
            **attributes["fusion"], modalities=modalities, target_mean=target_mean
        )
    for attribute, group in recipes.key_groups(model).items():
        names = [f.name for f in dataclasses.fields(group) if f.name in attributes]
        attributes[attribute] = group(**{name: attributes.pop(name) for name in names})
    return model(modalities=modalities, **attributes)


def _hashable(value: Any) -> Any:
    """A value as modules need it, which are hashed: lists as tuples, dicts as frozen ones."""
    if isinstance(value, Mapping):
        return FrozenDict({k: _hashable(v) for k, v in value.items()})
    if isinstance(value, list | tuple):
        return tuple(_hashable(v) for v in value)
    return value
