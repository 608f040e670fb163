"""What differs between the videos of a corpus and is not explained by their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from maven_jax.store.moments import Moments

# Directions of one modality; faces differ along few.
MOST_DIRECTIONS = 32
# A regression on two labels leaves nothing of fewer videos.
FEWEST_VIDEOS = 4


def directions_between(
    videos: Sequence[Mapping[str, Any]], moments: Mapping[str, Moments]
) -> dict[str, Float[np.ndarray, "_ _"]]:
    """Modality -> (k, c) rows; a combination of them with standard normal weights is an offset.

    It is drawn as the videos' mean features differ, in standard deviations of `moments`, after a
    regression on their mean labels: what makes another face or microphone. Videos with one observed
    frame do not count: there, a person is not told from a moment. k is 0 where too few are left.

    Args:
        videos: sums of each training video, as `Store.video_sums` gives them.
        moments: modality -> of its channels, by which features are standardised.
    """
    return {name: _directions(name, of_all, videos) for name, of_all in moments.items()}


def _directions(
    modality: str, moments: Moments, videos: Sequence[Mapping[str, Any]]
) -> Float[np.ndarray, "k c"]:
    counted = [v for v in videos if v[modality]["count"] > 1 and v["targets"]["count"] > 0]
    if len(counted) < FEWEST_VIDEOS:
        return np.zeros((0, len(moments.mean)), np.float32)
    means = np.array([v[modality]["mean"] for v in counted])
    means = (means - moments.mean) / np.maximum(moments.std, 1e-6)
    labels = np.array([[1.0, *v["targets"]["mean"]] for v in counted])
    rest = means - labels @ np.linalg.lstsq(labels, means, rcond=None)[0]
    freedom = len(counted) - labels.shape[1]
    _, values, rows = np.linalg.svd(rest / np.sqrt(freedom), full_matrices=False)
    return (values[:, None] * rows)[:MOST_DIRECTIONS].astype(np.float32)
