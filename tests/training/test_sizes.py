from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.experiment import Experiment
from maven_jax.training.sizes import settle_sizes
from maven_jax.training.step import averaged
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.mark.parametrize(
    ("frames", "expected"), [(1, dict(length=1, size=4)), (90, dict(length=50, size=6))]
)
def test_sizes_follow_from_the_data(tmp_path, frames, expected):
    store = write_small_store(tmp_path / "s", videos=4, frames=frames, unannotated=0.0)
    if frames == 1:  # videos of 1, 8, 15, 22 frames
        expected = dict(length=22, size=4)
    config = small_recipe(store.path, train__batch_frames=300)
    settle_sizes(Experiment(config, store))
    assert config.data.window.length == expected["length"]
    assert config.train.batch_size == expected["size"]


def test_a_recipe_that_names_sizes_keeps_them(tmp_path):
    store = write_small_store(tmp_path / "s", videos=4, frames=1)
    config = small_recipe(store.path)
    settle_sizes(Experiment(config, store))
    assert config.data.window.length == 50
    assert config.train.batch_size == 8


def test_the_average_forgets_early_weights_sooner():
    average = params = {"w": jnp.zeros(())}
    values = [3.0, 1.0, 2.0, 5.0]
    expected = 0.0
    for step, value in enumerate(values):
        params = {"w": jnp.asarray(value)}
        average = jax.jit(averaged, static_argnums=3)(average, params, jnp.asarray(step), 0.2)
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(average["w"], expected, rtol=1e-6)
    assert averaged(None, params, jnp.asarray(0), 0.0) is None
