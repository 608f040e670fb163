"""A network and ridge regression side by side: what is predicted is an average of the two."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from maven_jax.errors import UserError
from maven_jax.models.ridge import Ridge
from maven_jax.types import Features, ModalityMasks, Prediction

# The collection of variables that holds ridge's solution: no optimiser touches it.
SOLUTION = "ridge"


@dataclasses.dataclass(frozen=True)
class RidgeBeside:
    """A recipe's section `model.ridge`, which any model may have.

    Attributes:
        weight: of ridge in what is predicted, below 1; 0 for the model alone.
        widths: see `Ridge`.
        penalties, frame_step, most_groups: see `training.closed_form.ClosedForm`.

    Raises:
        UserError: a number out of its range.
    """

    weight: float | int
    widths: tuple[int, ...]
    penalties: tuple[float, ...]
    frame_step: int
    most_groups: int

    def __post_init__(self):
        for key, fits, expected in (
            ("weight", 0 <= self.weight < 1, "a number from 0 to below 1"),
            ("penalties", min(self.penalties, default=0) > 0, "numbers above 0"),
            ("most_groups", self.most_groups >= 2, "2 or more"),
        ):
            if not fits:
                value = getattr(self, key)
                raise UserError(f"config.model.ridge.{key}={value!r}: expected {expected}")


class BesideRidge(nn.Module):
    """Trains a network as if it were alone, and predicts the weighted mean of it and of ridge.

    On few recordings a network and a linear model in closed form err in different ways, so that
    their mean is better than either. Ridge's solution is a variable and no parameter:
    `training.beside_ridge` solves it before the first step.

    Attributes:
        modalities: names, in order.
        network: the model that is trained; its parameters lie under `network`.
        weight: of ridge in what is predicted, above 0 and below 1.
        widths: see `Ridge`.
        target_mean: see `Ridge`.
    """

    modalities: tuple[str, ...]
    network: nn.Module
    weight: float | int
    widths: tuple[int, ...]
    target_mean: tuple[float, float]

    @nn.compact
    def __call__(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
        *,
        train: bool,
    ) -> Prediction:
        """Returns the network's prediction in training, the mean otherwise; (b, t, 2)."""
        x = self._design(features, modality_masks, frame_mask)
        kernel = self.variable(SOLUTION, "kernel", jnp.zeros, (x.shape[-1], 2))
        bias = self.variable(SOLUTION, "bias", lambda: jnp.asarray(self.target_mean, jnp.float32))
        network = self.network(features, modality_masks, frame_mask, train=train)
        if train:
            return network
        ridge = jnp.einsum("btd,dk->btk", x, kernel.value, precision="highest") + bias.value
        va = self.weight * ridge + (1 - self.weight) * network.va
        return network.replace(va=va, polar=None)

    def _design(
        self, features: Features, modality_masks: ModalityMasks, frame_mask: Bool[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        ridge = Ridge(self.modalities, self.widths, self.target_mean, parent=None)
        return ridge.design(features, modality_masks, frame_mask)
