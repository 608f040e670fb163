"""Targets beside valence and arousal, learned from what a model's head sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from maven_jax import recipes
from maven_jax.errors import UserError, did_you_mean
from maven_jax.layers.linear import dense
from maven_jax.recipes import Config
from maven_jax.store.schema import TARGET_KINDS, ExtraTarget
from maven_jax.types import DIMENSIONS, Features, ModalityMasks, Prediction


class WithExtraHeads(nn.Module):
    """A model with a linear head for each extra target, on the features of its own head.

    The model's parameters keep their names; those of the heads lie beside them, under
    `extra_<name>`.

    Attributes:
        modalities: names, in order.
        wrapped: the model.
        targets: one for each head.
    """

    modalities: tuple[str, ...]
    wrapped: nn.Module
    targets: tuple[ExtraTarget, ...]

    def setup(self):
        nn.share_scope(self, self.wrapped)

    @nn.compact
    def __call__(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
        *,
        train: bool,
    ) -> Prediction:
        """Returns the model's prediction with `extra`: numbers, or logits.

        Raises:
            UserError: the model has no head of which the features could be taken.
        """
        prediction = self.wrapped(features, modality_masks, frame_mask, train=train)
        if prediction.hidden is None:
            raise UserError(
                "config.loss.extra_targets: this model has no features before its output that "
                "could serve other targets; leave them out"
            )
        hidden = prediction.hidden.astype(jnp.float32)
        # Padding may hold anything; a window's one vector serves all its frames.
        keep = True if hidden.shape[1] == 1 else frame_mask[..., None]
        hidden = jnp.where(keep, hidden, 0.0)
        extra: dict[str, Float[Array, "b t _"]] = {}
        for target in self.targets:
            output = dense(
                len(target.labels),
                ("embed", None),
                name=f"extra_{target.name}",
                dtype=jnp.float32,
                param_dtype=jnp.float32,
            )(hidden)
            extra[target.name] = jnp.broadcast_to(output, (*frame_mask.shape, output.shape[-1]))
        return prediction.replace(extra=extra)


def extra_targets_of(section: Mapping[str, Any] | None) -> tuple[ExtraTarget, ...]:
    """A model's section `extra_targets`: name -> `kind` and `labels`; by name, as JSON has them.

    Raises:
        UserError: a target that cannot be.
    """
    targets = []
    for name, content in sorted((section or {}).items()):
        kind = content.get("kind") if isinstance(content, Mapping) else None
        labels = content.get("labels") if isinstance(content, Mapping) else None
        if kind not in TARGET_KINDS or not isinstance(labels, list | tuple) or not labels:
            raise UserError(
                f"config.model.extra_targets.{name}: expected kind ({', '.join(TARGET_KINDS)}) "
                "and labels; training fills them in from the store"
            )
        targets.append(ExtraTarget(name, kind, tuple(map(str, labels))))
    return tuple(targets)


def predicted_beside(config: Config) -> tuple[ExtraTarget, ...]:
    """The extra targets that the model of a resolved recipe has heads for, in their order."""
    return extra_targets_of(recipes.plain(config.model).get("extra_targets"))


def output_names(targets: Iterable[ExtraTarget]) -> tuple[str, ...]:
    """What the columns of a prediction are called: valence, arousal, then those of the targets."""
    return (*DIMENSIONS, *(name for target in targets for name in target.columns))


def section_of(targets: Mapping[str, ExtraTarget]) -> dict[str, Any]:
    """The section that `extra_targets_of` reads."""
    return {name: {"kind": t.kind, "labels": t.labels} for name, t in targets.items()}


def targets_asked_for(config: Config, stored: Mapping[str, ExtraTarget]) -> dict[str, ExtraTarget]:
    """The targets that a recipe names, of those that its store has.

    Raises:
        UserError: the store lacks one, or not as many weights as names.
    """
    names, weights = tuple(config.loss.extra_targets), config.loss.extra_weights
    if len(weights) not in (1, len(names)):
        raise UserError(
            f"config.loss.extra_weights={weights}: expected one number, or one for each of "
            f"config.loss.extra_targets={names}"
        )
    for name in names:
        if name != "*" and name not in stored:
            raise UserError(
                f"config.loss.extra_targets: {config.data.store} has no target {name!r}"
                f"{did_you_mean(name, list(stored)) if stored else ''}"
            )
    return {n: t for n, t in stored.items() if n in names or "*" in names}
