"""The concordance correlation coefficient as a state that can be merged.

CCC(x, y) = 2 cov(x, y) / (var x + var y + (mean x - mean y)²) with population (1/N) moments: the
score of the ABAW challenges, over all valid frames of a partition. The state holds moments, so the
frames may come in blocks of any size, on any number of devices and in any order.

Three things keep float32 exact to about 1e-7, however many frames there are: moments are centred
within each block and merged by Chan's formula; sums within a block are taken as a tree; sums over
blocks carry their rounding error along (`_two_sum`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

_TREE_WIDTH = 32
_LANES = 64


def _two_sum(
    high: Float[Array, "*v"], low: Float[Array, "*v"], term: Float[Array, "*v"]
) -> tuple[Float[Array, "*v"], Float[Array, "*v"]]:
    """Returns (high, low) + term without losing what float32 rounds off (Knuth's two-sum)."""
    total = high + term
    shadow = total - high
    error = (high - (total - shadow)) + (term - shadow)
    return total, low + error


def _tree(
    values: Float[Array, "*v n 2"], reduce: Callable[..., Array], neutral: float | int
) -> Float[Array, "*v 2"]:
    """Sums (or takes the extremes) over the frames in groups of 32, then over the groups.

    The rounding error of a sum grows with log n, not n. In a long track the frames of a group lie
    64 apart: 64 groups side by side are reduced as vectors of 128 numbers, not of two.
    """
    while values.shape[-2] > 1:
        frames = values.shape[-2]
        lanes = _LANES if frames >= _TREE_WIDTH * _LANES else 1
        width = min(_TREE_WIDTH, frames)
        lead = values.shape[:-2]
        pad = [(0, 0)] * len(lead) + [(0, -frames % (width * lanes)), (0, 0)]
        values = jnp.pad(values, pad, constant_values=neutral)
        values = reduce(values.reshape(*lead, -1, width, lanes * 2), axis=-2)
        values = values.reshape(*lead, -1, 2)
    return values[..., 0, :]


def _tree_sum(values: Float[Array, "*v n 2"]) -> Float[Array, "*v 2"]:
    return _tree(values, jnp.sum, 0.0)


@no_type_check
@struct.dataclass
class CccScores:
    """Scores per dimension, (..., 2): valence, arousal. All 0 for a state without frames.

    Attributes:
        ccc: concordance correlation; 0 where either track is constant.
        pcc: Pearson correlation; 0 where either track is constant.
        rmse: root of the mean squared difference.
        mean_prediction: mean of the predictions.
        mean_target: mean of the targets.
        std_prediction: population standard deviation of the predictions.
        std_target: population standard deviation of the targets.
        count: (...) number of frames.
    """

    ccc: Float[Array, "*v 2"]
    pcc: Float[Array, "*v 2"]
    rmse: Float[Array, "*v 2"]
    mean_prediction: Float[Array, "*v 2"]
    mean_target: Float[Array, "*v 2"]
    std_prediction: Float[Array, "*v 2"]
    std_target: Float[Array, "*v 2"]
    count: Int[Array, "*v"]


@struct.dataclass
class CccState:
    """Moments of predictions x and targets y of the frames seen so far.

    Leading axes (`*v`) hold independent states, one per video for instance. Each float sum is
    `field` + `field_low`, where the second is the rounding error of the first.

    Attributes:
        count: (*v) frames.
        mean_x, mean_y: (*v, 2) means.
        square_x, square_y: (*v, 2) sums of squared deviations from the mean.
        product: (*v, 2) sum of products of the deviations.
        square_difference: (*v, 2) sum of (x - y)².
        low: the same six, as rounding errors.
    """

    # JAX rebuilds trees with shapes, shardings or None in place of arrays: methods are checked
    # against their annotations, the constructor is not.
    __no_type_check__ = True

    count: Int[Array, "*v"]
    mean_x: Float[Array, "*v 2"]
    mean_y: Float[Array, "*v 2"]
    square_x: Float[Array, "*v 2"]
    square_y: Float[Array, "*v 2"]
    product: Float[Array, "*v 2"]
    square_difference: Float[Array, "*v 2"]
    low: Float[Array, "*v 6 2"]

    @classmethod
    def empty(cls, shape: tuple[int, ...] = ()) -> CccState:
        """Returns the state of no frames; `shape` are the leading axes."""
        zeros = jnp.zeros((*shape, 2), jnp.float32)
        low = jnp.zeros((*shape, 6, 2), jnp.float32)
        return cls(jnp.zeros(shape, jnp.int32), zeros, zeros, zeros, zeros, zeros, zeros, low)

    @classmethod
    def of(
        cls,
        predictions: Float[Array, "*v n 2"],
        targets: Float[Array, "*v n 2"],
        mask: Bool[Array, "*v n"],
    ) -> CccState:
        """Returns the state of one block; frames where `mask` is False may hold anything."""
        if predictions.shape[-2] == 0:
            return cls.empty(mask.shape[:-1])
        keep = mask[..., None]
        count = mask.sum(axis=-1, dtype=jnp.int32)
        frames = jnp.maximum(count, 1).astype(jnp.float32)[..., None]
        x = jnp.where(keep, predictions.astype(jnp.float32), 0.0)
        y = jnp.where(keep, targets.astype(jnp.float32), 0.0)

        def centre(values):
            # Within the values' own range, so that a constant track is centred to exact zeros.
            low = _tree(jnp.where(keep, values, jnp.inf), jnp.min, jnp.inf)
            high = _tree(jnp.where(keep, values, -jnp.inf), jnp.max, -jnp.inf)
            mean = jnp.minimum(jnp.maximum(_tree_sum(values) / frames, low), high)
            mean = jnp.where(count[..., None] > 0, mean, 0.0)
            deviations = jnp.where(keep, values - mean[..., None, :], 0.0)
            return mean, deviations, _tree_sum(deviations) / frames

        mean_x, dx, error_x = centre(x)
        mean_y, dy, error_y = centre(y)
        # The means are rounded; their errors are small, and known precisely.
        square_x = _tree_sum(dx * dx) - frames * error_x * error_x
        square_y = _tree_sum(dy * dy) - frames * error_y * error_y
        product = _tree_sum(dx * dy) - frames * error_x * error_y
        low = jnp.zeros((*count.shape, 6, 2), jnp.float32)
        low = low.at[..., 0, :].set(error_x).at[..., 1, :].set(error_y)
        return cls(
            count=count,
            mean_x=mean_x,
            mean_y=mean_y,
            square_x=jnp.maximum(square_x, 0.0),
            square_y=jnp.maximum(square_y, 0.0),
            product=product,
            square_difference=_tree_sum((x - y) ** 2),
            low=low,
        )

    def update(
        self,
        predictions: Float[Array, "*v n 2"],
        targets: Float[Array, "*v n 2"],
        mask: Bool[Array, "*v n"],
    ) -> CccState:
        """Returns the state with a block of frames added; leading axes must match the state's."""
        return self.merge(CccState.of(predictions, targets, mask))

    def merge(self, other: CccState) -> CccState:
        """Returns the state of both sets of frames (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        share = (other.count / jnp.maximum(count, 1)).astype(jnp.float32)[..., None]
        weight = self.count.astype(jnp.float32)[..., None] * share  # n_a n_b / n
        low = self.low
        delta_x = (other.mean_x - self.mean_x) + (other.low[..., 0, :] - low[..., 0, :])
        delta_y = (other.mean_y - self.mean_y) + (other.low[..., 1, :] - low[..., 1, :])
        nothing = jnp.zeros_like(delta_x)
        steps = {  # field -> (term, the other state's rounding error, correction between them)
            "mean_x": (delta_x * share, nothing, nothing),
            "mean_y": (delta_y * share, nothing, nothing),
            "square_x": (other.square_x, other.low[..., 2, :], delta_x * delta_x * weight),
            "square_y": (other.square_y, other.low[..., 3, :], delta_y * delta_y * weight),
            "product": (other.product, other.low[..., 4, :], delta_x * delta_y * weight),
            "square_difference": (other.square_difference, other.low[..., 5, :], nothing),
        }
        sums, rests = {}, []
        for row, (field, (term, term_low, correction)) in enumerate(steps.items()):
            high, rest = _two_sum(getattr(self, field), low[..., row, :] + term_low, term)
            high, rest = _two_sum(high, rest, correction)
            # Move what has accumulated in the small part into the large one.
            sums[field], rest = _two_sum(high, nothing, rest)
            rests.append(rest)
        return CccState(count=count, low=jnp.stack(rests, axis=-2), **sums)

    def merge_axis(self) -> CccState:
        """Returns the states of the first leading axis merged into one, as a tree."""
        state = self
        while state.count.shape[0] > 1:
            length = state.count.shape[0]
            if length % 2:
                rest = CccState.empty((1, *state.count.shape[1:]))
                state = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), state, rest)
                length += 1
            half = length // 2
            first = jax.tree.map(lambda leaf, end=half: leaf[:end], state)
            second = jax.tree.map(lambda leaf, start=half: leaf[start:], state)
            state = first.merge(second)
        return jax.tree.map(lambda leaf: leaf[0], state)

    def compute(self) -> CccScores:
        """Returns the scores; a constant track, and a state without frames, gives 0."""
        frames = jnp.maximum(self.count, 1).astype(jnp.float32)[..., None]
        var_x, var_y = self.square_x / frames, self.square_y / frames
        cov = self.product / frames
        square_difference = self.square_difference / frames
        # var x + var y + (mean x - mean y)² = mean (x - y)² + 2 cov, which cancels far less when
        # the means are large and close.
        concordance = square_difference + 2 * cov
        deviation = jnp.sqrt(var_x) * jnp.sqrt(var_y)
        varied = deviation > 0
        varied &= concordance > 0
        return CccScores(
            ccc=jnp.where(varied, 2 * cov / jnp.where(varied, concordance, 1.0), 0.0),
            pcc=jnp.where(varied, cov / jnp.where(varied, deviation, 1.0), 0.0),
            rmse=jnp.sqrt(square_difference),
            mean_prediction=self.mean_x,
            mean_target=self.mean_y,
            std_prediction=jnp.sqrt(var_x),
            std_target=jnp.sqrt(var_y),
            count=self.count,
        )


def ccc_video_mean(state: CccState) -> Float[Array, "2"]:
    """Returns the mean over videos of each video's ccc, (2,).

    Args:
        state: one leading axis, a state per video. Videos without a valid frame do not count; a
            video with a constant track counts with 0.
    """
    seen = state.count > 0
    by_video = jnp.where(seen[:, None], state.compute().ccc, 0.0)
    return by_video.sum(axis=0) / jnp.maximum(seen.sum(), 1)


def ccc(
    predictions: Float[Array, "n 2"],
    targets: Float[Array, "n 2"],
    mask: Bool[Array, "n"] | None = None,
) -> Float[Array, "2"]:
    """Returns the ccc of valence and arousal over all frames, or those where `mask` is True."""
    if mask is None:
        mask = jnp.ones(len(targets), bool)
    return CccState.of(predictions, targets, mask).compute().ccc
