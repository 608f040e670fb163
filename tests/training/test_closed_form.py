"""The closed form against scikit-learn on a matrix that NumPy makes video by video."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from maven_jax.data.pipeline import to_batch
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.evaluate import evaluate
from maven_jax.runtime import hosts
from maven_jax.store.reader import Store
from maven_jax.training.train import train
from tests.support.processes import run_processes
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store

WIDTHS, PENALTIES = (1, 6, 15), (0.01, 0.1, 1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("store") / "s"
    return write_small_store(folder, videos=5, frames=90, unobserved=0.1)


def recipe(store: Store, **changes):
    values = dict(data__window__length=200, data__window__hop=200, eval__hop=200)
    values |= dict(model__widths=WIDTHS, optimizer__penalties=PENALTIES, train__batch_size=1)
    return small_recipe(store.path, "ridge", **(values | changes))


def averages(x, mask, width):
    """A plain loop."""
    rows = []
    for i in range(len(x)):
        near = slice(max(i - width // 2, 0), max(i - width // 2 + width, 0))
        rows.append(x[near][mask[near]].mean(0) if mask[near].any() else np.zeros(x.shape[1]))
    return np.stack(rows)


def rows_of(store: Store, split: str):
    """(regressors, targets, annotated) of each video."""
    for entry in store.videos(split):
        frames = store.read(entry, 0, entry.num_frames, tuple(store.modalities))
        columns = []
        for name, width in itertools.product(store.modalities, WIDTHS):
            moments = store.statistics[name]
            x = (np.asarray(frames.features[name], np.float64) - moments.mean) / moments.std
            columns.append(averages(x, frames.masks[name], width))
        yield np.concatenate(columns, 1), frames.targets.astype(float), frames.target_mask


def sklearn_predictions(store: Store):
    """Valence and arousal of the validation videos, as the docstring of `closed_form` says."""
    train_rows = [(x[m], y[m]) for x, y, m in rows_of(store, "train")]
    ys = np.concatenate([y for _, y in train_rows])

    def fitted(videos, penalty):
        x, y = (np.concatenate(part) for part in zip(*videos))
        return SklearnRidge(alpha=penalty * len(x)).fit(x, y)

    left_out = {
        penalty: np.concatenate(
            [
                fitted(train_rows[:i] + train_rows[i + 1 :], penalty).predict(x)
                for i, (x, _) in enumerate(train_rows)
            ]
        )
        for penalty in PENALTIES
    }
    columns = []
    for k in range(2):
        scores = [np.corrcoef(left_out[p][:, k], ys[:, k])[0, 1] for p in PENALTIES]
        penalty = PENALTIES[int(np.argmax(scores))]
        track = left_out[penalty][:, k]
        model = fitted(train_rows, penalty)
        raw = np.concatenate([model.predict(x)[:, k] for x, _, _ in rows_of(store, "validation")])
        columns.append(ys[:, k].mean() + ys[:, k].std() / track.std() * (raw - track.mean()))
    return np.clip(np.stack(columns, 1), -1, 1)


def predictions(store: Store, workdir, config) -> np.ndarray:
    train(config, workdir)
    experiment = Experiment(config, store).on_this_machine()
    fresh, shardings = experiment.fresh_weights()
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    weights = checkpoints.restore_weights(checkpoints.resolve("latest"), fresh)
    with jax.set_mesh(experiment.mesh):
        videos = experiment.predictor("validation", shardings)(weights)
    return np.concatenate([video.predictions for video in videos])


def test_it_is_scikit_learns_ridge(store, tmp_path):
    result = predictions(store, tmp_path / "run", recipe(store))
    np.testing.assert_allclose(result, sklearn_predictions(store), atol=2e-5)


ON_DEVICES = """
import json
from maven_jax import recipes
from maven_jax.training.train import train
train(recipes.from_json(json.loads(sys.argv[4])), sys.argv[5])
print(json.dumps(jax.device_count()))
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("processes", "devices"), [pytest.param(1, 8, marks=pytest.mark.slow), (2, 2)]
)
def test_any_number_of_devices_gives_the_same_solution(store, tmp_path, processes, devices):
    config = recipe(store)
    train(config, tmp_path / "one")
    config.mesh.data = -1
    arguments = (json.dumps(config.to_dict()), str(tmp_path / "many"))
    counts = run_processes(ON_DEVICES, *arguments, processes=processes, devices=devices)
    assert counts == [processes * devices] * processes
    one, many = (weights_of(tmp_path / name)["params"] for name in ("one", "many"))
    for name in ("kernel", "bias"):
        np.testing.assert_allclose(many[name], one[name], atol=1e-6)


def test_overlapping_windows_count_each_frame_once(store, tmp_path):
    whole = recipe(store, optimizer__frame_step=2, model__widths=(1,))
    cut = recipe(store, optimizer__frame_step=2, model__widths=(1,))
    cut.data.window.update(length=50, hop=30)
    cut.eval.hop = 30
    first, second = (
        predictions(store, tmp_path / name, config)
        for name, config in (("whole", whole), ("cut", cut))
    )
    np.testing.assert_allclose(first, second, atol=1e-5)


def weights_of(workdir) -> dict[str, Any]:
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    return checkpoints.read_weights(checkpoints.resolve("latest"))


class StopsAfter(hosts.Preemption):
    """Asks to stop at the n-th question."""

    def __init__(self, questions: int):
        super().__init__()
        self.left = questions

    def reached(self) -> bool:
        self.left -= 1
        return self.left == 0


def test_a_stopped_pass_continues_bit_for_bit(store, tmp_path):
    whole = predictions(store, tmp_path / "whole", recipe(store))
    stopped = train(recipe(store), tmp_path / "two", preemption=StopsAfter(2))
    assert stopped is None
    np.testing.assert_array_equal(predictions(store, tmp_path / "two", recipe(store)), whole)
    assert train(recipe(store), tmp_path / "two") == {}, "a solved run is not solved again"


@pytest.mark.multiprocess
def test_a_stopped_pass_is_summed_anew_on_other_devices(store, tmp_path):
    config = recipe(store)
    config.mesh.data = -1
    train(config, tmp_path / "whole")
    assert train(config, tmp_path / "two", preemption=StopsAfter(4)) is None
    arguments = (json.dumps(config.to_dict()), str(tmp_path / "two"))
    run_processes(ON_DEVICES, *arguments, processes=1, devices=2)
    one, two = (weights_of(tmp_path / name)["params"] for name in ("whole", "two"))
    np.testing.assert_allclose(two["kernel"], one["kernel"], atol=1e-6)


def test_one_recording_has_nobody_to_leave_out(tmp_path):
    store = write_small_store(tmp_path / "s", videos=1, frames=90)
    train(recipe(store), tmp_path / "run")
    scores = evaluate(tmp_path / "run", "validation")
    assert scores["ccc"] > 0.3


def test_other_models_have_no_closed_form(store, tmp_path):
    config = recipe(store)
    config.model = dict(name="constant_mean")
    with pytest.raises(UserError, match="constant_mean has no closed form"):
        train(config, tmp_path / "run", preemption=hosts.Preemption())


def test_beside_a_network_the_mean_of_both_is_predicted(store, tmp_path):
    config = small_recipe(store.path, "features:concat", model__ridge__weight=0.25)
    config.model.ridge.update(widths=WIDTHS, penalties=PENALTIES)
    train(config, tmp_path / "both")
    linear = recipe(store, **{f"data__window__{key}": 50 for key in ("length", "hop")})
    train(linear, tmp_path / "ridge")
    both, ridge = weights_of(tmp_path / "both"), weights_of(tmp_path / "ridge")

    experiment = Experiment(config, store)
    model: Any = experiment.model
    batch = to_batch(experiment.source(experiment.windows("validation", train=False)).read([0, 1]))
    batch = experiment.transform(batch, experiment.statistics, jax.random.key(0), train=False)
    inputs = jax.tree.map(jnp.asarray, (batch.features, batch.modality_masks, batch.frame_mask))

    def predict(module: Any, params: Any, **state: Any) -> Any:
        apply = jax.jit(functools.partial(module.apply, train=False))
        return apply({"params": params, **state}, *inputs).va

    mean = predict(model, both["params"], **both["model_state"])
    network = predict(model.network, both["params"]["network"])
    straight = predict(Experiment(linear, store).model, ridge["params"])
    np.testing.assert_allclose(mean, 0.75 * network + 0.25 * straight, atol=1e-5)
    assert np.abs(network - straight).max() > 0.1
