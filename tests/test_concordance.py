"""The CCC state against float64 NumPy, whatever way the frames are fed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.concordance import CccState, ccc, ccc_video_mean

update = jax.jit(CccState.update)


def reference(x, y):
    """Returns ccc, pcc and rmse of (n, 2) tracks by two passes in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    ccc = 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
    return ccc, cov / np.sqrt(x.var(0) * y.var(0)), np.sqrt(((x - y) ** 2).mean(0))


def tracks(num_frames, seed=0, mean=0.9, std=0.01, noise=0.003, offset=(0.001, -0.0005)):
    rng = np.random.default_rng(seed)
    targets = (mean + std * rng.standard_normal((num_frames, 2))).astype(np.float32)
    errors = noise * rng.standard_normal((num_frames, 2)) + np.asarray(offset)
    mask = rng.random(num_frames) < 0.97
    return (targets + errors).astype(np.float32), targets, mask


def feed(state, x, y, mask, block):
    """Feeds blocks of one size, the last one padded."""
    for start in range(0, len(x), block):
        part = slice(start, start + block)
        short = block - len(x[part])
        wide = ((0, short), (0, 0))
        state = update(
            state, np.pad(x[part], wide), np.pad(y[part], wide), np.pad(mask[part], (0, short))
        )
    return state


@pytest.fixture(scope="module")
def three_million():
    x, y, mask = tracks(3_000_000)
    return x, y, mask, reference(x[mask], y[mask])


def check(state, expected, atol=1e-6):
    scores = state.compute()
    for name, value in zip(("ccc", "pcc", "rmse"), expected):
        np.testing.assert_allclose(getattr(scores, name), value, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("block", [1_000, 65_536])
def test_three_million_frames_in_blocks_equal_float64(three_million, block):
    x, y, mask, expected = three_million
    state = feed(CccState.empty(), x, y, mask, block)
    assert int(state.count) == mask.sum()
    check(state, expected)


def test_three_million_frames_from_shards_merged_in_another_order_equal_float64(three_million):
    x, y, mask, expected = three_million
    order = np.random.default_rng(1).permutation(8)
    shards = [slice(i * 375_000, (i + 1) * 375_000) for i in order]
    states = [feed(CccState.empty(), x[s], y[s], mask[s], 4096) for s in shards]
    total = states[0]
    for state in states[1:]:
        total = state.merge(total)
    check(total, expected)


def test_three_million_frames_as_rows_merged_by_tree_equal_float64(three_million):
    x, y, mask, expected = three_million
    rows = jax.jit(CccState.of)(
        x.reshape(-1, 3000, 2), y.reshape(-1, 3000, 2), mask.reshape(-1, 3000)
    )
    check(jax.jit(CccState.merge_axis)(rows), expected)


def test_videos_with_different_means_equal_float64():
    """The spread between blocks is larger than the spread within them."""
    parts = [tracks(700, seed, mean=m, noise=0.05) for seed, m in enumerate((-0.8, 0.1, 0.95))]
    x, y, mask = (np.concatenate(column) for column in zip(*parts))
    check(feed(CccState.empty(), x, y, mask, 512), reference(x[mask], y[mask]))


def test_masked_frames_may_hold_anything():
    x, y, mask = tracks(500)
    clean = CccState.of(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask))
    x[~mask], y[~mask] = np.nan, np.inf
    dirty = CccState.of(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


@pytest.mark.parametrize("value", [0.0, 0.3, -0.77])
def test_constant_predictions_score_exactly_zero(value):
    _, y, mask = tracks(3000)
    x = np.full_like(y, value)
    scores = feed(CccState.empty(), x, y, mask, 77).compute()
    np.testing.assert_array_equal(scores.ccc, 0)
    np.testing.assert_array_equal(scores.pcc, 0)
    np.testing.assert_array_equal(scores.std_prediction, 0)


def test_constant_targets_equal_predictions_and_empty_states_score_zero():
    same = np.full((100, 2), 0.3, np.float32)
    everything = np.ones(100, bool)
    for state in (
        CccState.empty(),
        update(CccState.empty(), same, same, everything),
        update(CccState.empty(), same, tracks(100)[1], ~everything),
        CccState.of(jnp.zeros((0, 2)), jnp.zeros((0, 2)), jnp.zeros(0, bool)),
    ):
        scores = state.compute()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(scores))
        np.testing.assert_array_equal(scores.ccc, 0)


def test_one_frame_scores_zero_and_perfect_predictions_score_one():
    _, y, mask = tracks(1000)
    assert update(CccState.empty(), y[:1], y[:1], mask[:1]).compute().ccc.tolist() == [0, 0]
    np.testing.assert_allclose(update(CccState.empty(), y, y, mask).compute().ccc, 1, atol=1e-6)
    opposite = update(CccState.empty(), -y, y, mask).compute()
    np.testing.assert_allclose(opposite.pcc, -1, atol=1e-5)


def test_merging_an_empty_state_changes_nothing():
    x, y, mask = tracks(100)
    state = update(CccState.empty(), x, y, mask)
    for merged in (state.merge(CccState.empty()), CccState.empty().merge(state)):
        np.testing.assert_array_equal(merged.compute().ccc, state.compute().ccc)
        assert int(merged.count) == int(state.count)


def test_the_video_mean_is_another_number_and_leaves_out_videos_without_frames():
    parts = [tracks(300, seed, mean=m, noise=0.02) for seed, m in enumerate((-0.5, 0.0, 0.5, 0.9))]
    x, y, mask = (jnp.asarray(np.stack(column)) for column in zip(*parts))
    mask = mask.at[3].set(False)
    state = CccState.of(x, y, mask)
    per_video, mean = state.compute().ccc, ccc_video_mean(state)
    expected = [
        reference(np.asarray(x[v])[mask[v]], np.asarray(y[v])[mask[v]])[0] for v in range(3)
    ]
    np.testing.assert_allclose(per_video[:3], expected, atol=1e-6)
    np.testing.assert_array_equal(per_video[0], ccc(x[0], y[0], mask[0]))
    np.testing.assert_allclose(ccc(x[0][mask[0]], y[0][mask[0]]), expected[0], atol=1e-6)
    np.testing.assert_array_equal(per_video[3], 0)
    np.testing.assert_allclose(mean, np.mean(expected, axis=0), atol=1e-6)
    together = CccState.of(x, y, mask).merge_axis().compute().ccc
    assert (np.abs(together - mean) > 0.1).all()


def test_states_of_videos_grow_side_by_side():
    x, y, mask = tracks(600)
    x, y, mask = x.reshape(3, 200, 2), y.reshape(3, 200, 2), mask.reshape(3, 200)
    state = CccState.empty((3,))
    for part in (slice(0, 64), slice(64, 128), slice(128, 200)):
        state = state.update(
            *(jnp.asarray(leaf) for leaf in (x[:, part], y[:, part], mask[:, part]))
        )
    expected = [reference(x[v][mask[v]], y[v][mask[v]])[0] for v in range(3)]
    np.testing.assert_allclose(state.compute().ccc, expected, atol=1e-6)
    np.testing.assert_allclose(ccc_video_mean(state), np.mean(expected, axis=0), atol=1e-6)
