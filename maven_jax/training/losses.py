"""Losses over the valid frames of a batch, and how to add them up.

Every loss is a pure function of float32 sums: under `jax.jit` with sharded inputs the sums run over
the global batch. Frames where `mask` is False may hold anything, NaN included: they change neither
a value nor a gradient. A batch without a valid frame gives loss 0 with zero gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from maven_jax.errors import UserError, did_you_mean
from maven_jax.layers import circumplex
from maven_jax.store.schema import ExtraTarget
from maven_jax.types import Batch, Prediction

# Added to the denominator of the CCC. The variance of a constant track is float32 rounding, about
# 1e-15: its quotient would be noise with huge gradients. Real windows are above 1e-6.
_CCC_EPSILON = 1e-8

DimensionWeights = tuple[float | int, float | int]


def _over_dimensions(losses: Float[Array, "2"], weights: DimensionWeights) -> Float[Array, ""]:
    """Returns the weighted mean over (valence, arousal)."""
    return (losses * jnp.asarray(weights, jnp.float32)).sum() / sum(weights)


def _masked_mean_square(errors: Float[Array, "b t 2"], keep: Bool[Array, "b t 1"]):
    """Returns the mean over valid frames of errors², (2,)."""
    square = jnp.where(keep, jnp.where(keep, errors, 0.0) ** 2, 0.0)
    return square.sum(axis=(0, 1)) / jnp.maximum(keep.sum(), 1)


def masked_ccc(
    predictions: Float[Array, "*v n k"], targets: Float[Array, "*v n k"], mask: Bool[Array, "*v n"]
) -> Float[Array, "*v k"]:
    """Returns the differentiable CCC over the frames (axis -2); 0 for a constant track.

    Population moments, as in `maven_jax.ccc`, whose values it equals up to an epsilon of 1e-8
    in the denominator; use that for scores.
    """
    keep = mask[..., None]
    frames = jnp.maximum(keep.sum(axis=-2), 1)
    x = jnp.where(keep, predictions.astype(jnp.float32), 0.0)
    y = jnp.where(keep, targets.astype(jnp.float32), 0.0)
    mean_x, mean_y = x.sum(axis=-2) / frames, y.sum(axis=-2) / frames
    dx = jnp.where(keep, x - mean_x[..., None, :], 0.0)
    dy = jnp.where(keep, y - mean_y[..., None, :], 0.0)
    var_x, var_y = (dx**2).sum(axis=-2) / frames, (dy**2).sum(axis=-2) / frames
    cov = (dx * dy).sum(axis=-2) / frames
    return 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2 + _CCC_EPSILON)


def ccc_loss(
    prediction: Prediction,
    targets: Float[Array, "b t 2"],
    mask: Bool[Array, "b t"],
    *,
    reduction: Literal["window", "batch"],
    dimension_weights: DimensionWeights = (1.0, 1.0),
    min_frames: int = 2,
    stop_gradient: bool = False,
) -> Float[Array, ""]:
    """Returns the weighted mean over dimensions of 1 - CCC.

    Args:
        prediction: its `va` is scored.
        targets: (b, t, 2).
        mask: (b, t) frames that count.
        reduction: "window": one CCC per window, then the mean over the windows with at least
            `min_frames` valid frames. "batch": one CCC over all valid frames of the global batch.
        dimension_weights: of valence and arousal.
        min_frames: fewer valid frames than this carry no correlation.
        stop_gradient: count the value but not its gradient, as MAVEN's released training does.
    """
    predictions = prediction.va
    if reduction == "batch":
        predictions, targets, mask = (
            leaf.reshape(1, -1, *leaf.shape[2:]) for leaf in (predictions, targets, mask)
        )
    elif reduction != "window":
        raise UserError(f"ccc_loss: reduction is {reduction!r}; choose 'window' or 'batch'")
    counts = (mask.sum(axis=1) >= min_frames)[:, None]
    losses = jnp.where(counts, 1.0 - masked_ccc(predictions, targets, mask), 0.0)
    loss = _over_dimensions(losses.sum(axis=0) / jnp.maximum(counts.sum(), 1), dimension_weights)
    return jax.lax.stop_gradient(loss) if stop_gradient else loss


def mse(
    prediction: Prediction,
    targets: Float[Array, "b t 2"],
    mask: Bool[Array, "b t"],
    *,
    dimension_weights: DimensionWeights = (1.0, 1.0),
) -> Float[Array, ""]:
    """Returns the mean squared error on (valence, arousal), weighted mean over dimensions."""
    keep = mask[..., None]
    errors = jnp.where(keep, prediction.va.astype(jnp.float32), 0.0) - jnp.where(keep, targets, 0.0)
    return _over_dimensions(_masked_mean_square(errors, keep), dimension_weights)


def polar_mse(
    prediction: Prediction,
    targets: Float[Array, "b t 2"],
    mask: Bool[Array, "b t"],
    *,
    wrapped: bool,
) -> Float[Array, ""]:
    """Returns the mean squared error on (intensity, angle), the mean of both.

    Args:
        prediction: of a polar head.
        targets: (b, t, 2) valence and arousal.
        mask: (b, t).
        wrapped: take angle errors the shorter way round. False is MAVEN's released loss, in which
            two angles near ±π are far apart although they name nearly the same emotion.

    Raises:
        UserError: the model's head is not polar.
    """
    if prediction.polar is None:
        raise UserError("loss polar_mse: the model has no polar head; use mse, or head='polar'")
    keep = mask[..., None]
    polar = jnp.where(keep, prediction.polar.astype(jnp.float32), 0.0)
    goal = circumplex.to_polar(jnp.where(keep, targets.astype(jnp.float32), 0.0))
    errors = polar - goal
    if wrapped:
        angle = circumplex.angle_difference(
            polar[..., circumplex.ANGLE], goal[..., circumplex.ANGLE]
        )
        errors = errors.at[..., circumplex.ANGLE].set(angle)
    return _masked_mean_square(errors, keep).mean()


LossFn = Callable[
    [Prediction, Float[Array, "b t 2"], Bool[Array, "b t"]],
    tuple[Float[Array, ""], dict[str, Float[Array, ""]]],
]


def make_loss(
    terms: Mapping[str, float | int],
    *,
    dimension_weights: DimensionWeights = (1.0, 1.0),
    min_frames: int = 2,
    stop_ccc_gradient: bool = False,
) -> LossFn:
    """Returns loss(prediction, targets, mask) -> (weighted sum, {term: its unweighted value}).

    Args:
        terms: name -> weight. Names: "ccc" (1 - CCC per window), "ccc_batch" (over the global
            batch), "mse", "polar_mse" (angle errors the shorter way round), "polar_mse_unwrapped"
            (the release's). Terms with weight 0 are left out.
        dimension_weights: of valence and arousal, in all terms on (valence, arousal).
        min_frames: windows with fewer valid frames have no CCC term.
        stop_ccc_gradient: the CCC terms count in the value only: with
            `{"polar_mse_unwrapped": 1, "ccc_batch": 0.1}` the loss MAVEN was released with, apart
            from its CCC being taken on (valence, arousal).

    Raises:
        UserError: an unknown term, no term, or weights that are not positive somewhere.
    """
    ccc = functools.partial(
        ccc_loss,
        dimension_weights=dimension_weights,
        min_frames=min_frames,
        stop_gradient=stop_ccc_gradient,
    )
    functions = {
        "ccc": functools.partial(ccc, reduction="window"),
        "ccc_batch": functools.partial(ccc, reduction="batch"),
        "mse": functools.partial(mse, dimension_weights=dimension_weights),
        "polar_mse": functools.partial(polar_mse, wrapped=True),
        "polar_mse_unwrapped": functools.partial(polar_mse, wrapped=False),
    }
    for name in terms:
        if name not in functions:
            raise UserError(f"loss: unknown term {name!r}{did_you_mean(name, list(functions))}")
    chosen = {name: float(weight) for name, weight in terms.items() if weight}
    if not chosen or min(chosen.values()) < 0:
        raise UserError(f"loss: weights must be ≥ 0 and one of them positive, not {dict(terms)}")
    if len(dimension_weights) != 2 or min(dimension_weights) < 0 or not sum(dimension_weights):
        raise UserError(
            f"loss: dimension_weights are two numbers ≥ 0, not both 0; got {dimension_weights}"
        )

    def loss(prediction, targets, mask):
        parts = {name: functions[name](prediction, targets, mask) for name in chosen}
        total = sum((chosen[name] * part for name, part in parts.items()), jnp.zeros(()))
        return total, parts

    return loss


ExtraLossFn = Callable[[Prediction, Batch], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]


def make_extra_loss(weights: Mapping[ExtraTarget, float | int]) -> ExtraLossFn:
    """Returns loss(prediction, batch) -> (weighted sum, {"extra_<name>": its unweighted value}).

    Over the annotated frames of the global batch: 1 - CCC of a continuous target, the mean cross
    entropy of classes, and that of each yes or no.

    Args:
        weights: target -> its weight.
    """

    def loss(prediction: Prediction, batch: Batch):
        parts = {
            f"extra_{target.name}": _extra_loss(
                target.kind,
                prediction.extra[target.name].astype(jnp.float32),
                batch.extra_targets[target.name],
                batch.extra_masks[target.name],
            )
            for target in weights
        }
        return sum((w * p for w, p in zip(weights.values(), parts.values())), jnp.zeros(())), parts

    return loss


def _extra_loss(
    kind: str, outputs: Float[Array, "b t k"], targets: Float[Array, "b t w"], mask: Array
) -> Float[Array, ""]:
    keep = mask[..., None]
    targets = jnp.where(keep, targets, -1.0)
    if kind == "continuous":
        flat = [x.reshape(-1, *x.shape[2:]) for x in (outputs, targets, mask)]
        return jnp.where(mask.sum() > 1, 1.0 - masked_ccc(*flat).mean(), 0.0)
    keep &= targets >= 0
    outputs = jnp.where(mask[..., None], outputs, 0.0)
    if kind == "classes":
        classes = jnp.maximum(targets[..., 0], 0).astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, classes)[..., None]
    else:
        losses = optax.sigmoid_binary_cross_entropy(outputs, jnp.maximum(targets, 0))
    return jnp.where(keep, losses, 0.0).sum() / jnp.maximum(keep.sum(), 1)
