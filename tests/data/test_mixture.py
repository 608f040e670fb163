"""Windows of several stores in fixed proportions."""

from __future__ import annotations

import numpy as np
import pytest

from maven_jax.data.mixture import Mixture
from maven_jax.data.pipeline import WindowSource, train_iterator
from maven_jax.data.windows import make_windows
from maven_jax.store.reader import Store
from tests.support.stores import write_small_store


def write(path, videos: int, seed: int) -> Store:
    return write_small_store(
        path, videos=videos, frames=60, modalities={"x": 2}, seed=seed, chunk_frames=16
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, WindowSource]:
    folder = tmp_path_factory.mktemp("mixture")
    sources = {}
    for seed, (name, videos) in enumerate({"main": 5, "b": 3, "c": 2}.items()):
        store = write(folder / name, videos, seed)
        windows = make_windows(
            store.videos("train"), kind="sliding", length=20, hop=20, step_s=None
        )
        sources[name] = WindowSource(store, windows, ("x",), {})
    return sources


def mixture(sources, **weights: float) -> Mixture:
    return Mixture(sources["main"], {n: sources[n] for n in weights}, weights)


def owners(sources, mixed: Mixture, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of the first windows: which store each comes from, and its number there."""
    order = mixed.order(seed)
    numbers = np.array([int(order[i]) for i in range(count)])
    bounds = np.cumsum([0, *(len(sources[n]) for n in ("main", "b", "c"))])
    store = np.searchsorted(bounds, numbers, side="right") - 1
    return store, numbers - bounds[store]


def test_weights_are_exact_in_the_long_run_and_even_in_the_short(sources):
    store, _ = owners(sources, mixture(sources, b=0.5, c=0.123), 1623)
    np.testing.assert_array_equal(np.bincount(store), [1000, 500, 123])
    for i, share in enumerate(np.array([1000, 500, 123]) / 1623):
        seen = np.cumsum(store == i)
        assert np.abs(seen - share * np.arange(1, len(store) + 1)).max() < 1.5


def test_each_store_is_shuffled_anew_every_time_it_is_through(sources):
    store, window = owners(sources, mixture(sources, b=0.5, c=2.0), 1200)
    for i, name in enumerate(("main", "b", "c")):
        n = len(sources[name])
        epochs = window[store == i]
        epochs = epochs[: len(epochs) // n * n].reshape(-1, n)
        assert len(epochs) > 10
        np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(n), (len(epochs), 1)))
        assert len({tuple(e) for e in epochs}) > 5


def test_an_epoch_is_what_shows_all_windows_of_the_main_store_once(sources):
    for weights in ({"b": 0.5}, {"b": 0.1, "c": 0.3}, {"b": 7.0}):
        mixed = mixture(sources, **weights)
        n = len(sources["main"])
        assert mixed.epoch_windows == pytest.approx(n * (1 + sum(weights.values())), abs=1)
        store, window = owners(sources, mixed, mixed.epoch_windows)
        assert len(set(window[store == 0])) >= n - 1


def test_what_is_mixed_in_does_not_change_the_main_stores_order(sources):
    alone = sources["main"].order(3)
    for weights in ({"b": 0.5}, {"b": 0.1, "c": 4.0}):
        store, window = owners(sources, mixture(sources, **weights), 200, seed=3)
        mine = window[store == 0]
        np.testing.assert_array_equal(mine, [int(alone[i]) for i in range(len(mine))])


def test_batches_hold_the_windows_of_their_stores_and_continue_at_a_position(sources):
    mixed = mixture(sources, b=0.5, c=1.0)
    arguments = dict(batch_size=8, seed=0, num_threads=2)
    whole = train_iterator(mixed, rows=np.arange(8), **arguments)
    half = train_iterator(mixed, rows=np.array([1, 6]), **arguments)
    bounds = np.cumsum([0, *(len(sources[n]) for n in ("main", "b", "c"))])
    seen = set()
    for _ in range(5):
        batch, part = next(whole), next(half)
        for row, number in enumerate(batch["window"]):
            store = np.searchsorted(bounds, number, side="right") - 1
            seen.add(int(store))
            own = sources[("main", "b", "c")[store]][number - bounds[store]]
            np.testing.assert_array_equal(batch["features"]["x"][row], own["features"]["x"])
            np.testing.assert_array_equal(batch["targets"][row], own["targets"])
        np.testing.assert_array_equal(part["features"]["x"], batch["features"]["x"][[1, 6]])
    assert seen == {0, 1, 2}
    again = train_iterator(mixed, rows=np.arange(8), **arguments)
    again.set_state(whole.get_state())
    for _ in range(3):
        np.testing.assert_array_equal(next(again)["window"], next(whole)["window"])
