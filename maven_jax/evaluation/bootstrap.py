"""How far a CCC would move if other recordings of the same kind had been scored.

Frames of one recording resemble each other, so recordings are what is drawn: with replacement, as
many as there are, again and again; each draw has its own CCC over all frames concatenated. The
interval says nothing about another training, another corpus, or a checkpoint that these very
recordings chose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from maven_jax.evaluation.split_predictor import PredictedVideo
from maven_jax.evaluation.sums import ccc_of, sums_of
from maven_jax.types import DIMENSIONS

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
# Counts that are in memory at once.
_BLOCK = 2**22


def ccc_interval(
    videos: Sequence[PredictedVideo], dimensions: Sequence[str] = DIMENSIONS
) -> dict[str, Any] | None:
    """The 95 % bootstrap interval of the CCC over concatenated frames.

    Args:
        videos: predicted; frames that are not annotated do not count. Videos of one recording
            (`stem`) are drawn together.
        dimensions: those that were to be predicted.

    Returns:
        `ccc_valence`, `ccc_arousal` and `ccc` (their mean): the lowest and the highest value, None
        for a dimension that is not predicted; `level`, `resamples` and the number of `recordings`.
        None for fewer than two annotated recordings.
    """
    recordings = recording_sums(videos)
    if len(recordings) < 2:
        return None
    totals = np.concatenate(
        [np.tensordot(counts, recordings, 1) for counts in draws(len(recordings))]
    )
    scored = [DIMENSIONS.index(name) for name in dimensions]
    ccc = ccc_of(totals)  # (resamples, 2)
    interval: dict[str, Any] = {
        f"ccc_{name}": _middle(ccc[:, i]) if i in scored else None
        for i, name in enumerate(DIMENSIONS)
    }
    interval["ccc"] = _middle(ccc[:, scored].mean(1))
    return interval | {"level": LEVEL, "resamples": RESAMPLES, "recordings": len(recordings)}


def recording_sums(videos: Sequence[PredictedVideo]) -> Float64[np.ndarray, "r 2 6"]:
    """The sums of each recording's annotated frames, by name; see `sums_of`."""
    sums: dict[str, np.ndarray] = {}
    for video in videos:
        mask = video.target_mask
        if mask.any():
            of_video = np.stack(
                [sums_of(video.predictions[mask, i], video.targets[mask, i]) for i in range(2)]
            )
            sums[video.entry.stem] = sums.get(video.entry.stem, 0.0) + of_video
    return np.array([sums[name] for name in sorted(sums)]).reshape(-1, len(DIMENSIONS), 6)


def draws(recordings: int) -> Iterator[Int64[np.ndarray, "d r"]]:
    """How often each recording is drawn: `RESAMPLES` rows in blocks, the same in every call."""
    rng = np.random.default_rng(SEED)
    block = max(1, _BLOCK // recordings)
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        yield rng.multinomial(recordings, np.full(recordings, 1 / recordings), size=rows)


def _middle(values: Float64[np.ndarray, "d"]) -> list[float]:
    """The ends of what lies in the middle, `LEVEL` of all values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]
