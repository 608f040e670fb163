"""Scores of predicted videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.concordance import CccState, ccc_video_mean
from maven_jax.evaluation.split_predictor import PredictedVideo, check_finite
from maven_jax.types import DIMENSIONS

_BLOCK_FRAMES = 16384

_update = jax.jit(CccState.update)
_merge_all = jax.jit(CccState.merge_axis)
_video_mean = jax.jit(ccc_video_mean)


def video_state(video: PredictedVideo) -> CccState:
    """The moments of one video's annotated frames, taken in blocks of one shape."""
    state = CccState.empty()
    for start in range(0, len(video.predictions), _BLOCK_FRAMES):
        part = slice(start, start + _BLOCK_FRAMES)
        pad = _BLOCK_FRAMES - len(video.predictions[part])
        state = _update(
            state,
            np.pad(video.predictions[part], ((0, pad), (0, 0))),
            np.pad(video.targets[part], ((0, pad), (0, 0))),
            np.pad(video.target_mask[part], (0, pad)),
        )
    return state


def score(
    videos: Sequence[PredictedVideo], dimensions: Sequence[str] = DIMENSIONS
) -> tuple[dict[str, Any], np.ndarray]:
    """The scores of a split.

    Args:
        videos: predicted; frames that are not annotated do not count.
        dimensions: those that were to be predicted; the others are not scored.

    Returns:
        A dict: `ccc_valence`, `ccc_arousal`, `ccc` (their mean), all over the concatenated
        frames; the same three with `_video_mean`, the mean over videos of each video's ccc (a
        constant track counts with 0); `pcc_*`, `rmse_*`; `num_frames`, `num_videos`. Where one
        dimension is not scored its entries are None, and the mean is the other's. And each
        video's ccc, (v, 2).

    Raises:
        UserError: a prediction is not finite.
    """
    check_finite(videos)
    scored = [DIMENSIONS.index(name) for name in dimensions]
    states = [video_state(video) for video in videos]
    by_video = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    total = jax.device_get(_merge_all(by_video).compute())
    scores: dict[str, Any] = {}
    for name, values, suffix in (
        ("ccc", total.ccc, ""),
        ("ccc", np.asarray(_video_mean(by_video)), "_video_mean"),
        ("pcc", total.pcc, ""),
        ("rmse", total.rmse, ""),
    ):
        for i, dimension in enumerate(DIMENSIONS):
            scores[f"{name}_{dimension}{suffix}"] = float(values[i]) if i in scored else None
        scores[f"{name}{suffix}"] = float(np.mean(np.asarray(values)[scored], dtype=np.float64))
    scores["num_frames"] = int(total.count)
    scores["num_videos"] = int((by_video.count > 0).sum())
    return scores, np.stack([np.asarray(s.compute().ccc) for s in states])
