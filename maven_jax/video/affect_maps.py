"""What published networks of affect say, as valence and arousal.

Classes become the mean of their places on the circumplex, weighted by their probabilities.
Dimensions go through an affine map. Sections `map` of the recipes in configs/affect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.types import DIMENSIONS

Map = Callable[[Float[np.ndarray, "t c"]], Float32[np.ndarray, "t 2"]]


class ClassMap:
    """Scores of classes, before the softmax, to the mean of the classes' places.

    Args:
        labels: names of the outputs, in their order.
        places: name -> (valence, arousal).
        recipe: its name, for messages.

    Raises:
        UserError: a label without place, or a place outside of [-1, 1].
    """

    def __init__(
        self, labels: Sequence[str], places: Mapping[str, Sequence[float | int]], recipe: str
    ):
        for label in labels:
            place = places.get(label)
            if place is None:
                raise UserError(f"{recipe}: {label!r} has no place; --affect.places has its table")
            if len(place) != 2 or not all(-1 <= v <= 1 for v in place):
                raise UserError(
                    f"--affect.places.{label}={place}: expected valence and arousal from -1 to 1"
                )
        self.num_outputs = len(labels)
        self._places = np.array([places[label] for label in labels], np.float32)

    def __call__(self, outputs: Float[np.ndarray, "t c"]) -> Float32[np.ndarray, "t 2"]:
        logits = outputs.astype(np.float32)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True) @ self._places


class DimensionMap:
    """Two of a network's outputs, scaled and shifted into [-1, 1].

    Args:
        num_outputs: of the network.
        valence: its `output` (from 0), `scale` and `offset`.
        arousal: the same.
    """

    def __init__(
        self,
        num_outputs: int,
        valence: Mapping[str, float | int],
        arousal: Mapping[str, float | int],
    ):
        self.num_outputs = num_outputs
        given = (valence, arousal)
        self._index = [int(one["output"]) for one in given]
        self._scale, self._offset = (
            np.array([one[key] for one in given], np.float32) for key in ("scale", "offset")
        )

    def __call__(self, outputs: Float[np.ndarray, "t c"]) -> Float32[np.ndarray, "t 2"]:
        values = outputs[:, self._index].astype(np.float32) * self._scale + self._offset
        return np.clip(values, -1, 1)


def make_map(
    section: Mapping[str, Any], places: Mapping[str, Sequence[float | int]], where: str
) -> ClassMap | DimensionMap:
    """The map of a recipe's section.

    Raises:
        UserError: a wrong or missing key or value.
    """
    values = {key: value for key, value in section.items() if key != "kind"}
    if section.get("kind") == "classes":
        return recipes.call(ClassMap, values, where, places=places, recipe=where)
    if section.get("kind") == "dimensions":
        for name in DIMENSIONS:
            if set(values.get(name, {})) != {"output", "scale", "offset"}:
                raise UserError(f"config.{where}.{name}: expected output, scale and offset")
        return recipes.call(DimensionMap, values, where)
    raise UserError(f"config.{where}.kind {section.get('kind')!r}: expected classes or dimensions")


def combined(
    values: Float32[np.ndarray, "m t 2"],
    masks: np.ndarray,
    reliability: Float32[np.ndarray, "m 2"],
) -> Float32[np.ndarray, "t 2"]:
    """The mean over the modalities that were observed, weighted by reliability per dimension.

    Args:
        values: of each modality.
        masks: (m, t) where it was observed.
        reliability: of each, for valence and for arousal.

    Returns:
        0 in frames in which nothing was observed.
    """
    weights = masks[..., None] * reliability[:, None]
    total = weights.sum(axis=0)
    mean = (weights * values).sum(axis=0) / np.maximum(total, 1e-9)
    return mean.astype(np.float32)
