"""Frames of a video that is being encoded, read window by window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maven_jax.store.schema import Frames, ModalitySpec, VideoEntry
from maven_jax.video.live_frames import LiveFrames


def blocks(sizes):
    start = 0
    for n in sizes:
        values = np.arange(start, start + n, dtype=np.float32)[:, None]
        yield Frames(
            time_s=values[:, 0].astype(np.float64) / 25,
            targets=np.zeros((n, 2), np.float32),
            target_mask=np.zeros(n, bool),
            segment_id=np.full(n, -1, np.int32),
            features={"audio": values},
            masks={"audio": np.ones(n, bool)},
        )
        start += n


def test_windows_hold_their_frames_also_when_older_ones_are_dropped():
    specs = {"audio": ModalitySpec("audio", 1, {})}
    live = LiveFrames(Path("v.mp4"), specs, blocks([7, 30, 1, 40, 22]))
    entry = VideoEntry("v", "test", 100, 0, 25.0, 4.0, 0, "v", {}, {}, ((0, 100),))
    for first in range(0, 81, 20):
        spans = [(entry, slice(s, s + 10, 3)) for s in (first, first + 5, first + 10)]
        places = [{"audio": np.empty((4, 1), np.float16)} for _ in spans]
        live.read_into(spans, places)
        for (_, span), place in zip(spans, places):
            np.testing.assert_array_equal(place["audio"][:, 0], np.r_[span])
    assert sum(map(len, live.observed["audio"])) == 100
    with pytest.raises(ValueError, match="was dropped"):
        live.read_into([(entry, slice(0, 10, 3))], places[:1])
