"""Alignment: the right neighbour at the right time, and nothing invented outside the track."""

import itertools

import numpy as np
import pytest

from maven_jax.media import align


def track(start_s, count, step_s):
    times = start_s + step_s * np.arange(count)
    # Linear in time, so that interpolation is exact and a shift shows.
    return times, np.stack([times, -2 * times], axis=1).astype(np.float32)


def test_interpolation_is_exact_on_a_line_and_masked_a_step_outside():
    times, values = track(1.0, 50, 0.02)
    at = np.array([0.5, 0.975, 0.985, 1.0, 1.013, 1.5, 1.98, 1.995, 2.0051, 3.0])
    out, mask = align.interpolate(times, values, at, 0.02)
    np.testing.assert_array_equal(mask, [0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    inside = np.clip(at, 1.0, 1.98)[mask]
    np.testing.assert_allclose(out[mask], np.stack([inside, -2 * inside], 1), atol=1e-6)
    assert (out[~mask] == 0).all()


@pytest.mark.parametrize("count", [0, 1])
def test_tracks_of_no_or_one_sample(count):
    times, values = track(1.0, count, 0.02)
    out, mask = align.interpolate(times, values, np.array([0.975, 1.0, 1.005, 1.025]), 0.02)
    assert mask.tolist() == [False, count == 1, count == 1, False]
    assert out.shape == (4, 2)


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("ask", [1, 13, 400])
def test_stream_equals_the_whole_track(block, ask):
    rng = np.random.default_rng(0)
    times = 0.3 + 0.02 * np.arange(500)
    values = rng.normal(size=(500, 3)).astype(np.float32)
    at = np.cumsum(rng.uniform(0.005, 0.06, 400))  # a variable frame rate, beyond both ends
    whole, whole_mask = align.interpolate(times, values, at, 0.02)
    blocks = ((times[i : i + block], values[i : i + block]) for i in range(0, 500, block))
    stream = align.AlignedStream(blocks, dim=3, step_s=0.02)
    parts = [stream.at(at[i : i + ask]) for i in range(0, len(at), ask)]
    np.testing.assert_array_equal(np.concatenate([m for _, m in parts]), whole_mask)
    np.testing.assert_array_equal(np.concatenate([v for v, _ in parts]), whole)
    assert not whole_mask[0]
    assert not whole_mask[-1]
    assert whole_mask.sum() > 300


def test_stream_is_read_no_further_than_needed():
    read = []

    def blocks():
        for i in range(100):
            read.append(i)
            yield np.array([float(i)]), np.zeros((1, 1), np.float32)

    stream = align.AlignedStream(blocks(), dim=1, step_s=1.0)
    stream.at(np.array([3.5]))
    assert len(read) == 5
    assert len(stream._times) <= 2


@pytest.mark.parametrize(("length", "size", "overlap"), [(100, 30, 10), (30, 30, 10), (101, 20, 0)])
def test_pieces_cover_everything_once_or_twice(length, size, overlap):
    pieces = align.overlapping(length, size, overlap)
    count = np.zeros(length, int)
    for start, stop in pieces:
        assert stop - start <= size
        count[start:stop] += 1
    assert count.min() == 1
    assert count.max() <= 2
    assert all(b[0] - a[0] == size - overlap for a, b in itertools.pairwise(pieces))
    assert pieces[-1][1] == length
    assert len(pieces) == 1 or pieces[-1][1] - pieces[-1][0] > overlap


def test_no_pieces_for_nothing_and_too_much_overlap_refused():
    assert align.overlapping(0, 10, 2) == []
    with pytest.raises(ValueError, match="overlap 6"):
        align.overlapping(20, 10, 6)


def test_crossfade_keeps_an_agreed_track_and_blends_disagreement():
    truth = np.arange(100, dtype=np.float32)[:, None]
    pieces = align.overlapping(100, 30, 10)
    joined = list(align.crossfade((a, truth[a:b]) for a, b in pieces))
    assert [s for s, _ in joined] == [0, 20, 40, 60, 80][: len(joined)]
    np.testing.assert_allclose(np.concatenate([v for _, v in joined]), truth, rtol=1e-6)

    blended = np.concatenate(
        [v for _, v in align.crossfade([(0, np.zeros((10, 1))), (6, np.ones((10, 1)))])]
    )
    np.testing.assert_allclose(blended[:, 0], [0] * 6 + [0.2, 0.4, 0.6, 0.8] + [1] * 6, atol=1e-6)


def test_crossfade_refuses_a_gap():
    with pytest.raises(ValueError, match="does not continue"):
        list(align.crossfade([(0, np.zeros((5, 1))), (6, np.zeros((5, 1)))]))


def test_words_fill_their_segment_by_length():
    times = align.spread_words(["ab", "c", "def"], 10.0, 16.0)
    np.testing.assert_allclose(times, [[10, 12], [12, 13], [13, 16]])
    assert align.spread_words([], 0.0, 1.0).shape == (0, 2)


def test_segment_ids_half_open_overlapping_and_outside():
    starts, ends = np.array([5.0, 1.0, 2.0]), np.array([6.0, 4.0, 3.0])
    at = np.array([0.5, 1.0, 1.9, 2.0, 2.99, 3.0, 3.9, 4.0, 5.0, 5.5, 6.0])
    expected = [-1, 1, 1, 2, 2, 1, 1, -1, 0, 0, -1]
    np.testing.assert_array_equal(align.segment_ids(starts, ends, at), expected)
