"""Windows of several stores in fixed proportions, as one source of training batches."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np

from maven_jax.data.pipeline import WindowSource

# Weights are whole thousandths of the main store's, so proportions are exact in the long run.
PARTS = 1000


class Mixture:
    """A main source and others, interleaved evenly by weight (a source of `train_iterator`).

    In any stretch of windows each source has its share, to within a window or two. Each source is
    shuffled by itself and starts over when it is through; the main one keeps the order that it
    would have alone.

    Windows are numbered across all sources, the main one's first.

    Args:
        main: the source of weight 1.
        others: name -> source.
        weights: name -> windows for each one of the main source; a multiple of 0.001.
    """

    def __init__(
        self,
        main: WindowSource,
        others: Mapping[str, WindowSource],
        weights: Mapping[str, float],
    ):
        self._names = sorted(others)
        self._sources = [main, *(others[name] for name in self._names)]
        self._offsets = np.cumsum([0, *map(len, self._sources)])
        shares = [PARTS, *(round(weights[name] * PARTS) for name in self._names)]
        self._shares = [share // math.gcd(*shares) for share in shares]

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @property
    def epoch_windows(self) -> int:
        """Windows of training, of all sources, after which each of the main one was seen once."""
        return -(-len(self._sources[0]) * sum(self._shares) // self._shares[0])

    def order(self, seed: int) -> grain.MapDataset:
        """Endless window numbers."""
        seeds = [seed]
        for name in self._names:  # by name: its order does not depend on what else is mixed in
            sequence = np.random.SeedSequence([seed, *name.encode()])
            seeds.append(int(sequence.generate_state(1)[0]))
        orders = [source.order(s) for source, s in zip(self._sources, seeds)]
        deal: Any = _Deal(orders, self._offsets.tolist(), self._shares)
        return grain.MapDataset.source(deal)

    def read(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        """Windows by their numbers, as `WindowSource.read`; `window` is the mixture's number."""
        numbers = np.asarray(indices)
        owner = np.searchsorted(self._offsets, numbers, side="right") - 1
        parts, rows = [], []
        for i, source in enumerate(self._sources):
            own = np.flatnonzero(owner == i)
            if len(own):
                parts.append(source.read(numbers[own] - self._offsets[i]))
                rows.append(own)
        order = np.argsort(np.concatenate(rows))
        batch = jax.tree.map(lambda *leaves: np.concatenate(leaves)[order], *parts)
        return batch | {"window": numbers.astype(np.int32)}


class _Deal:
    """Position -> window number (a grain data source).

    The turns of the sources repeat after a period, in which each has as many as its share.
    """

    def __init__(
        self, orders: Sequence[grain.MapDataset], offsets: Sequence[int], shares: Sequence[int]
    ):
        self._orders, self._offsets, self._shares = orders, offsets, shares
        due = np.concatenate([(np.arange(share) + 0.5) / share for share in shares])
        turns = np.argsort(due, kind="stable")
        self._source = np.repeat(np.arange(len(shares)), shares)[turns]
        self._rank = np.concatenate([np.arange(share) for share in shares])[turns]

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: Any) -> int:
        period, place = divmod(int(position), len(self._source))
        source = int(self._source[place])
        index = period * self._shares[source] + int(self._rank[place])
        return self._offsets[source] + int(self._orders[source][index])  # type: ignore

    def __repr__(self) -> str:
        return f"_Deal(shares={list(self._shares)})"
