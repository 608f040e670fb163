"""How videos differ beyond their labels."""

from __future__ import annotations

import numpy as np

from maven_jax.data.offsets import directions_between
from maven_jax.store.moments import Moments


def test_they_are_the_covariance_of_means_once_labels_are_explained():
    draw = np.random.default_rng(0)
    labels = draw.normal(size=(200, 2))
    persons = draw.normal(size=(200, 1)) * [[3.0, 0.0, 1.0]]
    means = 5 + labels @ [[1.0, 2.0, 0.0], [0.0, 4.0, 1.0]] + persons
    moments = {"v": Moments(200, np.full(3, 5.0), np.array([2.0, 1.0, 1.0]))}

    def directions(frames: int) -> np.ndarray:
        return directions_between(
            [
                {"v": {"count": frames, "mean": m}, "targets": {"count": frames, "mean": y}}
                for m, y in zip(means, labels)
            ],
            moments,
        )["v"]

    rows, offset = directions(9), np.array([1.5, 0, 1])
    np.testing.assert_allclose(rows.T @ rows, np.outer(offset, offset), rtol=0.15, atol=1e-3)
    assert len(directions(1)) == 0
