"""Tables of scores on screens of different widths."""

from __future__ import annotations

import pytest

from maven_jax.evaluation.tables import print_scores
from maven_jax.progress import console


@pytest.mark.parametrize("width", [60, 80, 100])
def test_scores_fit_the_screen_without_broken_cells(width, capsys, monkeypatch):
    monkeypatch.setattr(console, "_width", width)
    ends = [
        f"{metric}{d}" for metric in ("ccc", "pcc", "rmse") for d in ("", "_valence", "_arousal")
    ]
    scores = dict.fromkeys([*ends, *(f"{name}_video_mean" for name in ends[:3])], 0.7763)
    interval = dict.fromkeys(ends[:3], (0.7061, 0.8204)) | {"level": 0.95, "recordings": 14}
    print_scores(scores | {"ccc_interval": interval, "num_frames": 7806, "num_videos": 14}, "maven")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum("│" in line for line in lines) == 5  # no cell is broken into two
    interval = "0.706 to 0.820" if width == 100 else "0.71–0.82"
    assert sum(line.count(interval) for line in lines) == 3
