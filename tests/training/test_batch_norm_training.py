"""Running statistics in training: saved and restored with the weights, and under accumulation."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.experiment import Experiment
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.store.reader import Store
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store
from tests.training.test_train import first_windows, fresh_step


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=5, frames=130)


def recipe(store: Store, **changes):
    """RJCMA's norms and head, without a recursion: little to compile."""
    config = small_recipe(store.path, "rjcma:both", **changes)
    config.model.update(temporal="none", num_steps=0, head_dim=8, temporal_dropout_rate=0.0)
    config.inputs.standardize = dict(visual="store", audio="store", text="store")
    config.optimizer.update(warmup_epochs=0.0, learning_rate=1e-2)
    config.eval.hop = 50
    return config


def weights_at(workdir, step: int) -> dict:
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    weights = checkpoints.read_weights(step)
    checkpoints.close()
    return weights


def test_two_steps_and_two_after_a_restart_are_four(store, tmp_path):
    config = recipe(store, checkpoint__every_steps=1, train__log_every_steps=1)
    config.checkpoint.keep.keep_latest = 100
    train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for folder in (tmp_path / "again/checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) > 2:
            shutil.rmtree(folder)
    train(config, tmp_path / "again")
    whole, again = (weights_at(tmp_path / name, 4) for name in ("whole", "again"))
    assert whole["model_state"]["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    before = weights_at(tmp_path / "whole", 2)
    moved = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), before["model_state"], whole["model_state"]
    )
    assert all(jax.tree.leaves(moved))


def test_accumulated_parts_enter_the_running_statistics_one_after_the_other(store):
    config = recipe(store, train__accumulate_steps=2)
    experiment = Experiment(config, store)
    state, step = fresh_step(experiment)
    batch = first_windows(experiment, 8)
    weights = jax.tree.map(np.array, state.weights)
    model, transform = experiment.model, experiment.transform
    expected = weights.model_state
    for part in range(2):
        half = jax.tree.map(lambda x, part=part: jnp.asarray(x[part::2]), batch)
        half = transform(half, weights.statistics, jax.random.key(0), train=True)
        _, expected = model.apply(
            {"params": weights.params, **expected},
            half.features,
            half.modality_masks,
            half.frame_mask,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
    with jax.set_mesh(experiment.mesh):
        after, _ = step(state, batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        after.weights.model_state,
        expected,
    )
