"""Targets beside valence and arousal: stored, learned, scored; without them nothing changes."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.data.pipeline import to_batch
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.runs.evaluate import evaluate
from maven_jax.store.reader import Store
from maven_jax.store.schema import ExtraTarget
from maven_jax.training import train
from maven_jax.training.feed import make_feed
from maven_jax.training.losses import make_extra_loss
from maven_jax.types import Batch, Prediction
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import EXTRA_TARGETS, write_small_store

NAMES = ("dominance", "expr", "au")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("store") / "s"
    return write_small_store(folder, videos=4, frames=120, extra_targets=EXTRA_TARGETS)


def test_a_store_keeps_extra_targets_apart_from_modalities(store):
    assert tuple(store.modalities) == ("visual", "audio", "text")
    assert store.extra_targets == {t.name: t for t in EXTRA_TARGETS}
    entry = store.videos("train")[0]
    frames = store.read(entry, 0, 30, ("expr",))
    assert frames.masks["expr"].tolist() == [False] * 20 + [True] * 10
    assert set(np.unique(frames.features["expr"])) <= {0, 1, 2, 3}
    assert set(store.read(entry, 0, 5).features) == {"visual", "audio", "text"}
    assert json.loads((store.path / "store.json").read_text())["version"] == 2


@pytest.mark.slow
def test_a_training_learns_and_an_evaluation_scores_them(store, tmp_path, capsys):
    config = small_recipe(store.path, "features:concat")
    config.loss.update(extra_targets=("*",), extra_weights=(0.5,))
    config.train.update(num_epochs=12.0, eval_every_epochs=12.0, ema_decay=0.0)
    config.optimizer.learning_rate = 3e-2
    config.inputs.update(noise_std=0.0, video_offset_std=0.0, speed=0.0)
    config.model.ridge.weight = 0.0
    train.train(config, tmp_path / "run")
    scores = evaluate(tmp_path / "run", "validation")["extra_targets"]
    frames = sum(e.observed["expr"] for e in store.videos("validation"))
    assert {name: s["frames"] for name, s in scores.items()} == dict.fromkeys(NAMES, frames)
    assert scores["dominance"]["ccc"] > 0.5
    assert scores["expr"]["f1"] > 0.5
    assert len(scores["expr"]["f1_by_label"]) == 4
    assert scores["au"]["f1"] > 0.5
    assert "expr: macro-F1 0." in capsys.readouterr().out


def test_resident_windows_have_what_streamed_ones_have(store):
    config = small_recipe(store.path, "features:concat")
    config.loss.extra_targets = ("expr", "au")
    config.data.resident = True
    experiment = Experiment.of(config)
    windows = experiment.windows("train", train=True)
    source = experiment.source(windows)
    feed = make_feed(experiment, windows, source)
    taken = jax.jit(feed._windows.take)(feed._windows.arrays, np.array([2, 0, 1, 3]))
    jax.tree.map(np.testing.assert_array_equal, taken, to_batch(source.read([2, 0, 1, 3])))
    assert set(taken.extra_targets) == {"expr", "au"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"extra_targets": ("dominence",)}, "no target 'dominence'; did you mean 'dominance'"),
        ({"extra_targets": ("expr", "au"), "extra_weights": (1.0, 1.0, 1.0)}, "one for each"),
    ],
)
def test_a_target_that_is_not_there_is_named(store, keys, message):
    config = small_recipe(store.path, "features:concat")
    config.loss.update(keys)
    with pytest.raises(UserError, match=message):
        Experiment.of(config)


def test_a_model_without_features_of_a_head_says_so(store):
    config = small_recipe(store.path, "features:mean")
    config.loss.extra_targets = ("expr",)
    with pytest.raises(UserError, match="no features before its output"):
        Experiment.of(config).fresh_weights()


def _one_batch(kind: str, outputs: list, targets: list, mask: list) -> tuple[float, np.ndarray]:
    """The loss of one window, and its gradient by the outputs."""
    target = ExtraTarget("x", kind, ("a", "b"))  # type: ignore[arg-type]
    shape = (1, len(mask))
    batch = Batch(
        features={},
        modality_masks={},
        frame_mask=jnp.ones(shape, bool),
        targets=jnp.zeros((*shape, 2)),
        target_mask=jnp.zeros(shape, bool),
        window=jnp.zeros(1, jnp.int32),
        extra_targets={"x": jnp.array([targets], jnp.float32)},
        extra_masks={"x": jnp.array([mask])},
    )

    def loss(x: jax.Array) -> jax.Array:
        prediction = Prediction(va=batch.targets, extra={"x": x})
        return make_extra_loss({target: 2.0})(prediction, batch)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.array([outputs], jnp.float32))
    return float(value), np.asarray(gradient)[0]


def test_classes_cost_their_cross_entropy_where_they_are_annotated():
    outputs = [[2.0, 0.0], [0.0, 1.0], [np.nan, 3.0]]
    value, gradient = _one_batch("classes", outputs, [[0], [0], [np.nan]], [True, True, False])
    expected = [np.log(1 + np.exp(-2)), np.log(1 + np.exp(1))]
    assert value == pytest.approx(2 * np.mean(expected), abs=1e-6)
    assert (gradient[2] == 0).all()
    assert np.isfinite(gradient).all()


def test_each_yes_or_no_costs_its_own_cross_entropy():
    value, gradient = _one_batch("binary", [[2.0, 5.0], [0.0, 1.0]], [[1, -1], [0, 1]], [True] * 2)
    expected = [np.log(1 + np.exp(-2)), np.log(2), np.log(1 + np.exp(-1))]
    assert value == pytest.approx(2 * np.mean(expected), abs=1e-6)
    assert gradient[0, 1] == 0


def test_runs_without_extra_targets_have_none(store, tmp_path: Path):
    experiment = Experiment.of(small_recipe(store.path, "features:concat"))
    assert "extra_targets" not in experiment.config.model
    assert jax.tree.leaves(experiment.example().extra_targets) == []
