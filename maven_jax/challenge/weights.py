"""Weights of an ensemble's members, by what they predict for the validation videos.

Greedy forward selection with replacement (Caruana et al., ICML 2004): again and again the member is
added that raises the ccc of the mean most; the weights are how often each was. Sums of products are
enough for that, so that every recording can be left out at no cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from maven_jax.errors import UserError
from maven_jax.evaluation.sums import ccc_of

_ROUNDS = 50


@dataclass(frozen=True)
class Weighed:
    """Weights for one dimension.

    Attributes:
        weights: of the members that predict it; they sum to 1.
        chosen_on_it: ccc on the recordings that chose them.
        left_out: ccc of each recording by the weights that the others choose; all concatenated. NaN
            if there is only one.
        equal: ccc with equal weights.
    """

    weights: Float64[np.ndarray, "r"]
    chosen_on_it: float
    left_out: float
    equal: float


def products(
    tracks: Float64[np.ndarray, "r n"], targets: Float[np.ndarray, "n"]
) -> Float64[np.ndarray, "k k"]:
    """Sums over frames of the products of 1, the target and each member's prediction."""
    rows = np.concatenate([np.ones((1, len(targets))), targets[None].astype(np.float64), tracks])
    return rows @ rows.T


def sums_with(
    total: Float64[np.ndarray, "k k"], weights: Float64[np.ndarray, "c r"]
) -> Float64[np.ndarray, "c 6"]:
    """What `ccc_of` takes, of the weighted means by c sets of weights."""
    x, xy = weights @ total[2:, 0], weights @ total[2:, 1]
    xx = np.einsum("ci,ij,cj->c", weights, total[2:, 2:], weights)
    n, y, yy = total[0, 0], total[0, 1], total[1, 1]
    same = np.ones(len(weights))
    return np.stack([n * same, x, y * same, xx, yy * same, xy], -1)


def choose(total: Float64[np.ndarray, "k k"]) -> Float64[np.ndarray, "r"]:
    """The weights by some recordings; equal ones, if selection finds none that are better."""
    members = len(total) - 2
    best = np.full(members, 1 / members)
    reached = ccc_of(sums_with(total, best[None]))[0]
    counts = np.zeros(members)
    for _ in range(_ROUNDS):
        tried = (counts + np.eye(members)) / (counts.sum() + 1)
        scores = ccc_of(sums_with(total, tried))
        at = int(scores.argmax())
        counts[at] += 1
        if scores[at] > reached + 1e-9:
            best, reached = tried[at], scores[at]
    return best


def weigh(by_recording: Float64[np.ndarray, "n k k"]) -> Weighed:
    """Weights by the `products` of all recordings, and an estimate of what they are worth."""
    total = by_recording.sum(0)
    weights = choose(total)
    equal = np.full_like(weights, 1 / len(weights))
    score, plain = (float(ccc_of(sums_with(total, w[None]))[0]) for w in (weights, equal))
    if len(by_recording) < 2:
        return Weighed(weights, score, float("nan"), plain)
    held = [sums_with(own, choose(total - own)[None]) for own in by_recording]
    left_out = float(ccc_of(np.sum(held, 0))[0])
    return Weighed(weights, score, left_out, plain)


def given_weights(text: str, members: int) -> Float64[np.ndarray, "r"]:
    """Weights as `--weights 0.6,0.4` gives them, one for each member; they sum to 1.

    Raises:
        UserError: another number of them, or not numbers from 0 of which one is above.
    """
    try:
        values = np.array([float(w) for w in text.split(",")])
    except ValueError:
        values = np.array([np.nan])
    if len(values) != members or not (values >= 0).all() or not 0 < values.sum() < np.inf:
        raise UserError(
            f"--weights {text}: expected validation, equal, or {members} numbers from 0, one for "
            "each run"
        )
    return values / values.sum()


def for_members(
    weights: Float64[np.ndarray, "r"], predicts: Mapping[str, Sequence[bool]]
) -> dict[str, Float64[np.ndarray, "r"]]:
    """Dimension -> the weights among the members that predict it.

    Args:
        weights: of all members.
        predicts: dimension -> whether each member predicts it.

    Raises:
        UserError: the members that predict a dimension weigh nothing.
    """
    by_dimension = {}
    for name, does in predicts.items():
        own = np.where(does, weights, 0.0)
        if not own.sum():
            raise UserError(f"--weights: every run that predicts {name} has the weight 0")
        by_dimension[name] = own / own.sum()
    return by_dimension
