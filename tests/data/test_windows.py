"""Which frames each kind of window covers."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.data.windows import (
    Windows,
    dense_bounds,
    dense_stride,
    make_windows,
    padded_lengths,
    sliding_bounds,
)
from maven_jax.errors import UserError
from maven_jax.store.schema import VideoEntry
from tests.support.stores import write_small_store


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


def entry(num_frames: int, fps: float) -> VideoEntry:
    return VideoEntry("v", "train", num_frames, 0, fps, 1.0, 1, "v", {}, {}, ((0, num_frames),))


def test_dense_windows_hold_every_frame_once_and_leave_no_gap_within_one():
    rng = np.random.default_rng(0)
    sizes = [(1, 1, 1), (5, 16, 30), (480, 16, 30), (481, 16, 30), (479, 16, 30), (7, 3, 1)]
    sizes += [
        tuple(map(int, s))
        for s in np.stack(
            [rng.integers(1, 2000, 60), rng.integers(1, 20, 60), rng.integers(1, 40, 60)], 1
        )
    ]
    for num_frames, length, stride in sizes:
        covered = np.zeros(num_frames, int)
        for start, stop in dense_bounds(num_frames, length, stride, 1):
            frames = range(start, stop, stride)
            assert 1 <= len(frames) <= length
            assert frames[-1] == stop - 1 < num_frames
            # A window ends early only where the video does.
            assert len(frames) == length or stop - 1 + stride >= num_frames
            covered[start:stop:stride] += 1
        assert (covered == 1).all(), (num_frames, length, stride)


def test_dense_windows_keep_to_seconds_whatever_the_frame_rate():
    rates = [(300, 30.0), (71, 7.5), (200, 23.976), (40, 0.4), (1, 25.0)]
    entries = [entry(n, fps) for n, fps in rates]
    windows = make_windows(entries, kind="dense", length=4, hop=1, step_s=1.0)
    strides = [30, 8, 24, 1, 25]
    assert [dense_stride(fps, 1.0) for _, fps in rates] == strides
    np.testing.assert_array_equal(windows.step, np.array(strides)[windows.video])
    for counts in windows.coverage():
        np.testing.assert_array_equal(counts, 1)
    lengths = [len(range(*windows.frames(i).indices(10**6))) for i in range(len(windows))]
    assert max(lengths) == windows.length == 4
    assert min(lengths) == 1
    twice = make_windows(entries, kind="dense", length=4, hop=1, step_s=0.5)
    assert (twice.step[twice.video == 0] == 15).all()


def test_a_larger_hop_begins_dense_windows_farther_apart():
    (one,) = [entry(1000, 30.0)]
    all_of_them = make_windows([one], kind="dense", length=16, hop=1, step_s=1)
    some = make_windows([one], kind="dense", length=16, hop=10, step_s=1)
    starts = set(all_of_them.start)
    assert set(some.start) == {s for s in starts if s % 480 % 10 == 0}
    assert max(some.coverage()[0]) == 1
    assert some.coverage()[0].mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "step_s", "message"),
    [
        ("dense", None, "seconds between frames"),
        ("dense", 0.0, "step_s=0.0"),
        ("dense", float("nan"), "step_s=nan"),
        ("sliding", 1.0, "only dense windows"),
        ("segment", 1.0, "only dense windows"),
    ],
)
def test_step_s_goes_with_dense_windows_only(kind, step_s, message):
    with pytest.raises(UserError, match=message):
        make_windows([entry(50, 25.0)], kind=kind, length=4, hop=1, step_s=step_s)


def test_other_windows_are_of_consecutive_frames_and_cover_all():
    entries = [entry(310, 25.0), entry(20, 30.0)]
    for kind in ("sliding", "segment"):
        windows = make_windows(entries, kind=kind, length=100, hop=70, step_s=None)
        assert (windows.step == 1).all()
        assert all(counts.min() == 1 for counts in windows.coverage())


def test_every_window_is_padded_to_the_shortest_length_that_holds_it():
    frames = np.array([1, 75, 76, 300, 150, 151, 2])
    start = np.arange(len(frames)) * 1000
    windows = Windows((), np.arange(len(frames)), start, start + frames, np.ones(7, int), 300)
    parts = windows.by_length(padded_lengths("segment", 300))
    assert [(part.length, numbers.tolist()) for numbers, part in parts] == [
        (75, [0, 1, 6]),
        (150, [2, 4]),
        (300, [3, 5]),
    ]
    for numbers, part in parts:
        np.testing.assert_array_equal(part.video, numbers)
        np.testing.assert_array_equal(part.stop - part.start, frames[numbers])
    ((numbers, whole),) = windows.by_length(padded_lengths("sliding", 300))
    assert whole.length == 300
    assert numbers.tolist() == list(range(7))
