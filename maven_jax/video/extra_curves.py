"""What is predicted of a video beside valence and arousal: dominance, expressions, action units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from maven_jax.errors import printable
from maven_jax.store.schema import ExtraTarget
from maven_jax.video.mean_interval import mean_interval


@dataclass(frozen=True)
class ExtraCurves:
    """The predictions of one target, as the model gives them: neither smoothed nor calibrated.

    Attributes:
        target: its kind and its labels.
        values: (n, k) a number in [-1, 1], or the probability of each label; NaN where no modality
            was observed.
    """

    target: ExtraTarget
    values: Float32[np.ndarray, "n k"]

    def columns(self, rows: slice = slice(None)) -> dict[str, list[float]]:
        """Column of a table -> its values in some frames."""
        return dict(zip(self.target.columns, self.values[rows].T.tolist()))

    def shown(self, values: Float[np.ndarray, "k"]) -> str:
        """The values of one frame, or the mean of some: `+0.20`, `Happy`, `AU1 AU12`."""
        if self.target.kind == "continuous":
            return f"{values[0]:+.2f}"
        there = self.target.labels_at(values[None])[0]
        return printable(" ".join(np.array(self.target.labels)[there]))

    def statistics(self) -> dict[str, Any] | None:
        """`kind`, and `mean` (with its 95 % interval), `std`, `min`, `max` of a number.

        Of labels, `shares`: in which share of the predicted frames each is the likeliest class, or
        likelier than not. None if nothing was predicted.
        """
        known = self.values[np.isfinite(self.values).all(axis=1)].astype(np.float64)
        if not len(known):
            return None
        if self.target.kind == "continuous":
            return {"kind": self.target.kind, **spread(known[:, 0])}
        there = self.target.labels_at(known)
        shares = dict(zip(self.target.labels, there.mean(axis=0).tolist()))
        return {"kind": self.target.kind, "shares": shares}

    def in_words(self) -> str:
        """`statistics` for people."""
        numbers = self.statistics()
        if numbers is None:
            return "not predicted"
        shares = numbers.get("shares")
        return spread_in_words(numbers) if shares is None else _shares_in_words(shares)

    def to_json(self, rows: Sequence[list[float] | None]) -> dict[str, Any]:
        """For a JSON file; `rows` are the values, None where there are none."""
        return {"kind": self.target.kind, "labels": list(self.target.labels), "values": rows}


def curves_of(
    outputs: Float32[np.ndarray, "n _"],
    targets: Sequence[ExtraTarget],
    unobserved: Bool[np.ndarray, "n"],
) -> dict[str, ExtraCurves]:
    """Name -> curves, of a model's outputs behind valence and arousal, in the targets' order."""
    ends = np.cumsum([len(target.labels) for target in targets])[:-1]
    values = np.where(unobserved[:, None], np.float32(np.nan), outputs)
    parts = np.split(values, ends, axis=1)
    return {target.name: ExtraCurves(target, part) for target, part in zip(targets, parts)}


def spread(values: np.ndarray) -> dict[str, Any]:
    """Mean, its 95 % interval (None if it is unknown), standard deviation, least and most."""
    ends = mean_interval(values)
    numbers = {n: float(getattr(values, n)()) for n in ("mean", "std", "min", "max")}
    return {**numbers, "mean_interval": None if ends is None else list(ends)}


def spread_in_words(numbers: Mapping[str, Any]) -> str:
    """`+0.123 on average (95%: +0.05 to +0.20), from -0.10 to +0.30`."""
    ends = numbers["mean_interval"]
    sure = "" if ends is None else f" (95%: {ends[0]:+.2f} to {ends[1]:+.2f})"
    least, most = numbers["min"], numbers["max"]
    return f"{numbers['mean']:+.3f} on average{sure}, from {least:+.2f} to {most:+.2f}"


def _shares_in_words(shares: Mapping[str, float | int], most: int = 4) -> str:
    """`Happy in 53%, Calm in 40%`, the most frequent labels first; none that is in no frame."""
    order = sorted((label for label in shares if shares[label]), key=lambda name: -shares[name])
    words = [f"{printable(label)} in {shares[label]:.0%}" for label in order[:most]]
    more = f", {len(order) - most} others" if len(order) > most else ""
    return (", ".join(words) + more) or "none of its labels"
