from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from maven_jax import recipes
from maven_jax.data.pipeline import to_batch, train_iterator
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.metrics import read_metrics
from maven_jax.store.reader import Store
from maven_jax.training import train
from maven_jax.training.feed import StreamedFeed
from maven_jax.training.reporter import NonFiniteLoss
from maven_jax.training.stages import Stage, StageBuilder
from maven_jax.types import Batch
from tests.support.compilations import counted
from tests.support.recipes_for_tests import small_recipe
from tests.support.root import ROOT
from tests.support.stores import write_small_store

VARIANTS = [
    "quickstart",
    "quickstart:visual",
    "quickstart:concat",
    "quickstart:mean",
    "maven",
    "maven:audio,text",
    "maven_released:mlp",
    "maven_released:beit",
    "baseline:concat",
    "baseline:mean",
    "features",
    "features:blstm",
    "features:transformer",
    "features:concat",
    "features:maven",
    "features:late_fusion",
    "features:rjca",
    "features:rjcma",
    "features:mean",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory) -> Store:
    """Features as wide as the published encoders'."""
    widths = {"visual": 1024, "audio": 768, "text": 768}
    path = tmp_path_factory.mktemp("store") / "wide"
    return write_small_store(path, videos=2, frames=40, modalities=widths)


def first_stage(experiment: Experiment) -> tuple[StageBuilder, Stage]:
    builder = StageBuilder(experiment, steps_per_epoch=3, total_steps=30)
    return builder, builder.build(0, 0)


def fresh_step(experiment: Experiment):
    """A fresh state and the training step."""
    builder, stage = first_stage(experiment)
    return builder.fresh(stage), stage.step


def first_windows(experiment: Experiment, count: int) -> Batch:
    source = experiment.source(experiment.windows("train", train=True))
    return to_batch(source.read(range(count)))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_recipe_goes_through_a_whole_train_step(name, wide_store):
    experiment = Experiment(recipes.load(name), wide_store)
    _, stage = first_stage(experiment)
    with jax.set_mesh(experiment.mesh):
        after, metrics = jax.eval_shape(stage.step, stage.like, experiment.example())
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (stage.like, after)]
    assert shapes[0] == shapes[1]
    assert metrics["loss"].shape == ()
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(after.weights.params))


def small_step(store, dropout_rate=0.0, **changes):
    config = small_recipe(store.path, "quickstart:concat", inputs__modality_dropout=0.0, **changes)
    config.model.dropout_rate = dropout_rate
    config.inputs.update(noise_std=0.0, offset_std=0.0, video_offset_std=0.0, speed=0.0)
    experiment = Experiment(config, store)
    return *fresh_step(experiment), first_windows(experiment, 8), experiment.mesh


def numpy(tree):
    return jax.tree.map(np.array, tree)


def test_accumulated_gradients_are_those_of_the_whole_batch(store):
    results = []
    for parts in (1, 4):
        state, step, batch, mesh = small_step(
            store, loss__terms={"mse": 1.0}, train__accumulate_steps=parts
        )
        # The mean over parts is the mean over the batch where all parts have as many frames.
        batch = batch.replace(target_mask=np.ones_like(batch.target_mask))
        with jax.set_mesh(mesh):
            state, metrics = step(state, batch)
        results.append((numpy(state.weights.params), float(metrics["loss"])))
    (whole, loss), (accumulated, loss_accumulated) = results
    assert loss == pytest.approx(loss_accumulated, rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), whole, accumulated)


def test_the_number_of_a_step_fixes_its_dropout(store):
    state, step, batch, mesh = small_step(store, dropout_rate=0.5)
    losses = []
    for number in (3, 3, 4):
        copied = jax.tree.map(np.array, state).replace(step=np.int32(number))
        with jax.set_mesh(mesh):
            losses.append(float(step(copied, batch)[1]["loss"]))
    assert losses[0] == losses[1] != losses[2]


def test_the_plateaus_scale_multiplies_the_update(store):
    state, step, batch, mesh = small_step(store, optimizer__warmup_epochs=0.0)
    before = numpy(state.weights.params)
    moved = []
    for scale in (1.0, 0.5):
        state, step, batch, mesh = small_step(store, optimizer__warmup_epochs=0.0)
        with jax.set_mesh(mesh):
            after, _ = step(state.replace(lr_scale=np.float32(scale)), batch)
        moved.append(jax.tree.map(lambda a, b: np.array(a) - b, after.weights.params, before))
    largest = max(np.abs(x).max() for x in jax.tree.leaves(moved[0]))
    assert largest > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / 2, b, atol=1e-7), *moved)


def test_unannotated_frames_and_padding_do_not_move_the_weights(store):
    results = []
    for garbage in (0.0, np.nan):
        state, step, batch, mesh = small_step(store)
        hidden = np.random.default_rng(0).random(batch.target_mask.shape) < 0.3
        mask = batch.target_mask & ~hidden
        targets = np.where(mask[..., None], batch.targets, np.float32(garbage))
        with jax.set_mesh(mesh):
            state, _ = step(state, batch.replace(target_mask=mask, targets=targets))
        results.append(numpy(state.weights.params))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_the_shuffled_batches_do_not_depend_on_the_number_of_processes(store):
    config = small_recipe(store.path)
    experiment = Experiment.of(config)
    windows = experiment.windows("train", train=True)
    source = experiment.source(windows)

    def batches(processes: int, count: int) -> list[list[int]]:
        iterators = [
            train_iterator(source, batch_size=8, rows=rows, seed=3, num_threads=2)
            for rows in np.split(np.arange(8), processes)
        ]
        return [[int(w) for it in iterators for w in next(it)["window"]] for _ in range(count)]

    epochs = 2 * len(windows) // 8
    one = batches(1, epochs)
    assert one == batches(2, epochs) == batches(4, epochs)
    seen = np.bincount(np.concatenate(one), minlength=len(windows))
    assert seen.min() >= 1
    assert seen.max() <= 3


def test_the_iterators_position_is_restored(store):
    config = small_recipe(store.path)
    experiment = Experiment.of(config)
    windows = experiment.windows("train", train=True)
    source = experiment.source(windows)
    arguments = dict(batch_size=4, rows=np.arange(4), seed=0, num_threads=2)
    first, second = train_iterator(source, **arguments), train_iterator(source, **arguments)
    for _ in range(5):
        next(first)
    second.set_state(first.get_state())
    for _ in range(5):
        np.testing.assert_array_equal(next(first)["window"], next(second)["window"])


def test_nothing_is_compiled_after_the_first_step_and_the_first_evaluation(
    store, tmp_path, monkeypatch
):
    config = small_recipe(store.path, "quickstart:mean")
    after_step = []
    plain = StreamedFeed.run

    def run(self, state, taken):
        result = plain(self, state, taken)
        after_step.append(dict(found))
        return result

    monkeypatch.setattr(StreamedFeed, "run", run)
    jax.clear_caches()  # of what other tests have compiled
    with counted() as found:
        train.train(config, tmp_path / "run")
    half = len(after_step) // 2
    assert half >= 2
    first, second = after_step[1:half], after_step[half:]  # of both epochs
    assert found["compiled"] > first[0]["compiled"] > 0
    assert all(counts == first[0] for counts in first)
    assert all(counts == found for counts in second)  # the second evaluation is in it, too


def test_a_run_learns_and_leaves_its_record(store, tmp_path):
    config = small_recipe(store.path, "quickstart:concat", train__num_epochs=30.0)
    config.train.eval_every_epochs = 15.0
    scores = train.train(config, tmp_path / "run")
    assert scores["ccc"] > 0.5
    rows = read_metrics(tmp_path / "run")
    losses = [r["loss"] for r in rows if r["kind"] == "train"]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert record["config"]["train"]["batch_size"] == 8
    assert record["versions"]["jax"] == jax.__version__
    assert record["store_fingerprint"] == store.fingerprint
    assert list((tmp_path / "run/tensorboard").glob("events*"))


def test_the_best_and_the_latest_checkpoints_are_kept(store, tmp_path):
    config = small_recipe(store.path, "quickstart:concat", train__num_epochs=6.0)
    config.optimizer.learning_rate = 0.1  # jumps about, so that the best is not the last
    config.optimizer.schedule_kind = "constant"
    train.train(config, tmp_path / "run")
    by_step = {
        r["step"]: r["ccc"]
        for r in read_metrics(tmp_path / "run")
        if "ccc" in r and r["kind"] != "train"
    }
    checkpoints = Checkpoints(tmp_path / "run", keep_latest=1, keep_best=1, read_only=True)
    best = max(by_step, key=lambda s: by_step[s])
    assert checkpoints.resolve("best") == best
    assert checkpoints.resolve("latest") == max(by_step)
    kept = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {best, *sorted(by_step)[-2:]}
    with pytest.raises(UserError, match="no checkpoint '1'"):
        checkpoints.resolve("1")
    scores = evaluate(tmp_path / "run", "validation", which="best")
    assert scores["ccc"] == pytest.approx(by_step[best], abs=1e-6)


def test_constant_predictions_score_zero(store, tmp_path):
    config = small_recipe(store.path, "quickstart:mean", train__num_epochs=1.0)
    scores = train.train(config, tmp_path / "run")
    assert scores["ccc_valence"] == scores["ccc_arousal"] == scores["ccc_video_mean"] == 0
    track = np.loadtxt(
        next(_evaluated(tmp_path / "run").glob("*.csv")), delimiter=",", skiprows=1, usecols=(2, 3)
    )
    expected = store.statistics["targets"].mean
    np.testing.assert_allclose(track, np.broadcast_to(expected, track.shape), atol=1e-5)


def _evaluated(workdir: Path) -> Path:
    evaluate(workdir, "validation")
    return workdir / "eval" / "validation"


def test_another_config_in_the_workdir_is_refused(store, tmp_path):
    config = small_recipe(store.path, "quickstart:mean", train__num_epochs=1.0)
    train.train(config, tmp_path / "run")
    other = small_recipe(store.path, "quickstart:mean", train__num_epochs=1.0, seed=5)
    # As a version wrote it that did not have the key yet.
    record = json.loads((tmp_path / "run/config.json").read_text())
    del record["config"]["eval"]["blend"]
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    train.train(config, tmp_path / "run")
    with pytest.raises(UserError, match=r"another config: seed \(0 there, 5 now\)"):
        train.train(other, tmp_path / "run")


def test_other_features_in_the_workdir_are_refused(store, tmp_path):
    config = small_recipe(store.path, "quickstart:mean", train__num_epochs=1.0)
    train.train(config, tmp_path / "run")
    other = write_small_store(tmp_path / "other", videos=6, frames=150, seed=9)
    config = small_recipe(other.path, "quickstart:mean", train__num_epochs=1.0)
    with pytest.raises(UserError, match="other features"):
        train.train(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(store, tmp_path):
    config = small_recipe(store.path, "quickstart:concat", loss__terms={"mse": 1.0})
    config.optimizer.update(learning_rate=1e30, warmup_epochs=0.0, clip_norm=None)
    config.checkpoint.every_steps = 1
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        train.train(config, tmp_path / "run")
    # What the message says of the last checkpoint is so: it was saved before the loss was lost.
    saved = Checkpoints(tmp_path / "run", keep_latest=1, keep_best=1, read_only=True)
    assert saved.latest_step == 1


def test_patience_ends_the_run(store, tmp_path):
    config = small_recipe(store.path, "quickstart:mean", train__num_epochs=9.0)
    config.train.plateau.stop_patience = 2
    train.train(config, tmp_path / "run")
    evaluations = [r["step"] for r in read_metrics(tmp_path / "run") if r["kind"] == "validation"]
    assert len(evaluations) == 3  # the first is the best, two more bring nothing
    assert train.train(config, tmp_path / "run") == {}  # stays stopped


# Real processes, really killed.


def train_and_evaluate(store: Path, workdir: Path) -> None:
    config = small_recipe(
        store,
        "quickstart:concat",
        train__num_epochs=4.0,
        train__log_every_steps=3,
        checkpoint__every_steps=2,
    )
    train.train(config, workdir)
    evaluate(workdir, "validation")


PROGRAM = """
import sys
from pathlib import Path
from tests.training.test_train import train_and_evaluate
train_and_evaluate(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def start(store: Store, workdir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store.path), str(workdir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def results(workdir: Path) -> tuple[list, dict]:
    return read_metrics(workdir), json.loads((workdir / "eval/validation.json").read_text())


@pytest.mark.multiprocess
def test_a_killed_run_continues_to_the_same_numbers(store, tmp_path):
    train_and_evaluate(store.path, tmp_path / "whole")
    for line in ("step 3/", "validation: ccc"):
        process = start(store, tmp_path / "killed")
        for text in process.stdout:
            if line in text:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        assert process.returncode == -signal.SIGKILL
    output = finish(start(store, tmp_path / "killed"))
    assert "continuing from step" in output
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    train_and_evaluate(store.path, tmp_path / "killed")  # a finished run is only evaluated again
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
