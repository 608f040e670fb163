"""The mean over windows that overlap, frame by frame."""

from __future__ import annotations

import numpy as np

from maven_jax.evaluation.overlap import OverlapMean


def test_each_frame_gets_the_mean_of_its_windows_without_their_padding():
    mean = OverlapMean(5, "mean")
    first = np.full((3, 2), 1.0, np.float32)
    padded = np.array([[3, 3], [3, 3], [3, 3], [9, 9]], np.float32)
    assert mean.add(slice(0, 3), first) == 3
    assert mean.uncovered == 3
    assert mean.add(slice(2, 5), padded) == 3
    assert mean.uncovered is None
    assert mean.mean().tolist() == [[1, 1], [1, 1], [2, 2], [3, 3], [3, 3]]


def test_windows_may_skip_frames_and_values_may_have_any_shape():
    mean = OverlapMean(4, "mean", (3, 2))
    for start in (0, 1):
        values = np.full((2, 3, 2), start, np.float32)
        assert mean.add(slice(start, 4, 2), values) == 2
    assert mean.mean().shape == (4, 3, 2)
    assert mean.mean()[:, 2, 1].tolist() == [0, 1, 0, 1]


def test_the_middle_of_a_window_counts_most_if_windows_are_blended_by_their_centres():
    mean = OverlapMean(6, "centre")
    mean.add(slice(0, 4), np.zeros((4, 2), np.float32))
    mean.add(slice(2, 6), np.ones((4, 2), np.float32))
    # Weights of four frames: 1/4, 3/4, 3/4, 1/4.
    np.testing.assert_allclose(mean.mean()[:, 0], [0, 0, 0.25, 0.75, 1, 1], rtol=1e-6)
    assert mean.uncovered is None
