from __future__ import annotations

import numpy as np
import pytest

from maven_jax.data.windows import make_windows, sliding_bounds
from maven_jax.errors import UserError
from tests.stores import write_small_store


@pytest.mark.parametrize("frames", [1, 7, 99, 100, 101, 149, 150, 151, 1000])
@pytest.mark.parametrize(("length", "hop"), [(100, 50), (100, 100), (30, 7), (8, 1)])
def test_every_frame_is_covered_and_no_window_leaves_the_video(frames, length, hop):
    bounds = sliding_bounds(frames, length, hop)
    covered = np.zeros(frames, int)
    for start, stop in bounds:
        assert 0 <= start < stop <= frames
        assert stop - start == min(length, frames)
        covered[start:stop] += 1
    assert covered.min() >= 1
    assert len(set(bounds)) == len(bounds)


def test_the_last_window_is_flush_with_the_end():
    assert sliding_bounds(730, 300, 200) == [(0, 300), (200, 500), (400, 700), (430, 730)]


def test_segment_windows_hold_every_frame_once_and_one_segment_each(tmp_path):
    store = write_small_store(tmp_path / "s", videos=2)
    windows = make_windows(store.videos("train"), kind="segment", length=40, hop=40, step_s=None)
    for i, entry in enumerate(windows.entries):
        mine = windows.video == i
        covered = np.zeros(entry.num_frames, int)
        for start, stop in zip(windows.start[mine], windows.stop[mine]):
            ids = store.read(entry, int(start), int(stop), ()).segment_id
            assert len(np.unique(ids)) == 1
            covered[start:stop] += 1
        np.testing.assert_array_equal(covered, 1)


def test_training_leaves_out_videos_without_annotation(tmp_path):
    store = write_small_store(tmp_path / "s", videos=3, unannotated=1.0)
    assert (
        len(make_windows(store.videos("train"), kind="sliding", length=50, hop=50, step_s=None)) > 0
    )
    with pytest.raises(UserError, match="no windows"):
        make_windows(
            store.videos("train"), kind="sliding", length=50, hop=50, step_s=None, annotated=True
        )


@pytest.mark.parametrize(("length", "hop"), [(0, 1), (10, 0), (10, 11)])
def test_impossible_sizes_are_refused(length, hop, tmp_path):
    with pytest.raises(UserError, match="hop"):
        make_windows((), kind="sliding", length=length, hop=hop, step_s=None)


def test_unknown_kind_is_refused():
    with pytest.raises(UserError, match="sliding, segment, dense"):
        make_windows((), kind="random", length=2, hop=1, step_s=None)
