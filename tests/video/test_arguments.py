"""What callers of a predictor give: sensible kinds of values are taken, others named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.video.arguments import as_face, as_fps, as_path, as_smooth, as_workers


def test_integers_of_all_kinds_are_numbers():
    assert as_face(1) == as_face(np.int64(1)) == as_face("1") == "1"
    assert as_face("longest") == "longest"
    assert as_smooth(5) == as_smooth(np.int32(5)) == as_smooth([5, np.int64(5)]) == (5, 5)
    assert as_smooth((20, 50)) == (20, 50)
    assert as_fps(np.float32(25)) == as_fps(25) == 25.0
    assert as_workers(np.int8(3), 1) == 3
    assert as_workers(None, 4) == 4
    assert as_path("a", "media") == as_path(Path("a"), "media") == Path("a")
    assert as_fps(None) is as_path(None, "crops") is None


@pytest.mark.parametrize(
    ("convert", "value", "message"),
    [
        (as_face, True, "face=True: expected a word or a face's number"),
        (as_fps, 0, "fps=0: expected a number of frames per second above 0"),
        (as_fps, -25.0, "fps=-25.0"),
        (as_fps, float("nan"), "fps=nan"),
        (as_fps, np.float64("inf"), "fps="),
        (as_smooth, -1, "expected two numbers of frames"),
        (as_smooth, (1, 2, 3), r"smooth=\[1, 2, 3\]: expected two numbers"),
        (as_smooth, (), r"smooth=\(\): expected two numbers"),
        (lambda n: as_workers(n, 1), 0, "workers=0: expected a number of threads"),
        (lambda n: as_workers(n, 1), -2, "workers=-2"),
        (lambda v: as_path(v, "crops"), 5, "crops=5: expected a path"),
    ],
)
def test_other_values_are_named(convert, value, message):
    with pytest.raises(UserError, match=message):
        convert(value)
