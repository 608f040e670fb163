"""Models by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from maven_jax.errors import UserError, did_you_mean
from maven_jax.models.baselines import ConcatMlp, ConstantMean
from maven_jax.models.late_fusion import LateFusion
from maven_jax.models.lfan import Lfan
from maven_jax.models.maven import Maven
from maven_jax.models.maven_released import MavenReleased
from maven_jax.models.rjca import Rjca
from maven_jax.models.rjcma import Rjcma

MODELS: dict[str, type[nn.Module]] = {
    "maven": Maven,
    "maven_released": MavenReleased,
    "rjca": Rjca,
    "rjcma": Rjcma,
    "lfan": Lfan,
    "late_fusion": LateFusion,
    "concat_mlp": ConcatMlp,
    "constant_mean": ConstantMean,
}


def create(
    name: str,
    *,
    modalities: Sequence[str],
    target_mean: Sequence[float] | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Returns a model, still without parameters.

    Args:
        name: a key of MODELS.
        modalities: names, in the order in which the model is to use them.
        target_mean: (valence, arousal) of the training set; only models that want it get it.
        **kwargs: the model's own attributes; lists become tuples.

    Raises:
        UserError: unknown name, no modalities, or one given twice.
        TypeError: an attribute the model does not have, or lacks.
    """
    if name not in MODELS:
        raise UserError(f"model: unknown name {name!r}{did_you_mean(name, list(MODELS))}")
    modalities = tuple(modalities)
    if not modalities or len(set(modalities)) < len(modalities):
        raise UserError(f"model: modalities must be one or more different names, not {modalities}")
    model = MODELS[name]
    if "target_mean" in model.__dataclass_fields__:
        if target_mean is None:
            raise UserError(f"model {name}: needs target_mean, the mean of the training targets")
        valence, arousal = target_mean
        kwargs["target_mean"] = (float(valence), float(arousal))
    # Modules are hashed as static values, which lists from a config are not.
    kwargs = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    return model(modalities=modalities, **kwargs)
