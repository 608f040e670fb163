"""Staged training: groups that join in, best weights put back, and continuing after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import read_metrics
from maven_jax.store.reader import Store
from maven_jax.training.optimizer import Plateau
from maven_jax.training.stages import Groups, StageControl
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.root import ROOT
from tests.support.stores import write_small_store

PARAMS = {
    "encoder": {"block1": {"kernel": 0}, "block2": {"kernel": 0, "bias": 0}},
    "head": {"kernel": 0, "bias": 0},
}
# A constant rate of .3 jumps about, so that the best weights are not the last ones.
STAGED = dict(
    train__stages=("^head/hidden_0", "_visual"),
    train__num_epochs=12.0,
    train__plateau=dict(factor=0.5, patience=0, min_scale=0.5, stop_patience=4),
    optimizer__schedule_kind="constant",
    optimizer__warmup_epochs=0.0,
    optimizer__learning_rate=0.3,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


def test_a_parameter_joins_with_the_first_pattern_found_in_its_path():
    groups = Groups(("block2", "^encoder"), PARAMS)
    assert groups.trained(PARAMS, 0) == {"head": {"kernel": 0, "bias": 0}}
    assert groups.trained(PARAMS, 1) == {
        "encoder": {"block2": {"kernel": 0, "bias": 0}},
        "head": {"kernel": 0, "bias": 0},
    }
    assert groups.trained(PARAMS, 2) == PARAMS


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("block3",), "no parameter is left for 'block3'; the paths begin with encoder, head"),
        (("encoder", "block1"), "no parameter is left for 'block1'"),
        (("encoder|head",), "nothing for the first stage"),
        (("block(",), r"'block\(': missing \)"),
    ],
)
def test_patterns_that_cannot_be_are_named(patterns, message):
    with pytest.raises(UserError, match=message):
        Groups(patterns, PARAMS)


def control(stages: int, **changes) -> StageControl:
    values: dict[str, Any] = dict(factor=0.1, patience=1, min_scale=0.01, stop_patience=None)
    return StageControl(Plateau(**(values | changes)), stages)


def test_a_stage_ends_when_the_smallest_rate_has_had_its_patience():
    c = control(stages=2)
    seen = []
    for _ in range(8):
        c.update(0.5)
        seen.append((c.plateau.scale, c.over, c.stopped))
        if c.over:
            break
    # The first sets the best score; each shrinking takes two more, the end another two.
    scales = [1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]
    assert [s for s, _, _ in seen] == pytest.approx(scales)
    assert [over for _, over, _ in seen] == [False] * 6 + [True]
    c.advance(70)
    assert (c.stage, c.first_step, c.over, c.plateau.scale) == (1, 70, False, 1.0)
    for _ in range(20):  # the last stage has no end of its own
        c.update(0.4)
    assert (c.over, c.stopped) == (False, False)
    assert c.plateau.best == 0.5  # of the whole run


def test_stop_patience_ends_a_stage_and_in_the_last_one_the_run():
    c = control(stages=2, factor=1.0, patience=9, stop_patience=2)
    for _ in range(3):
        c.update(0.1)
    assert (c.over, c.stopped) == (True, False)
    c.advance(3)
    c.update(0.2)
    for _ in range(2):
        c.update(0.1)
    assert (c.over, c.stopped) == (False, True)


def test_the_control_continues_from_its_saved_state():
    first, second = control(stages=3), control(stages=3)
    for score in (0.1, 0.2, 0.1, 0.1, 0.1):
        first.update(score)
    first.advance(5)
    first.update(0.15)
    second.from_json(first.to_json())
    assert first == second
    assert not math.isinf(second.plateau.best)


def weights_at(workdir: Path, step: int) -> dict:
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    weights = checkpoints.read_weights(step)
    checkpoints.close()
    return weights


@pytest.fixture(scope="module")
def staged(store, tmp_path_factory) -> tuple[Path, str]:
    """A run of three stages with all its checkpoints, and what it printed."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    output = finish(start(store, workdir, keep=100))
    return workdir, output


PROGRAM = """
import sys
from pathlib import Path
from typing import Any
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.training.test_stages import STAGED
config = small_recipe(Path(sys.argv[1]), "quickstart:concat", checkpoint__every_steps=1, **STAGED)
config.checkpoint.keep.keep_latest = int(sys.argv[3])
train(config, Path(sys.argv[2]))
"""


def start(store: Store, workdir: Path, keep: int) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store.path), str(workdir), str(keep)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def boundaries(workdir: Path) -> list[int]:
    """The steps at which a stage began, from the checkpoints' own record."""
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    latest = checkpoints.resolve("latest")
    found = {checkpoints.control(s)["stage"]["first_step"] for s in range(1, latest + 1)}
    checkpoints.close()
    return sorted(found)


def flat(tree: dict) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(p.key) for p in path): leaf for path, leaf in leaves}


@pytest.mark.multiprocess
def test_frozen_parameters_stay_bit_for_bit_until_their_stage(staged):
    workdir, output = staged
    _, second, third = boundaries(workdir)
    assert [f"stage {i} of 3" in output for i in (1, 2, 3)] == [True] * 3
    last = max(r["step"] for r in read_metrics(workdir))
    before, middle, later, end = (
        flat(weights_at(workdir, s)["params"]) for s in (1, second, third, last)
    )
    for path in before:
        joins = {"head/hidden_0": 1, "_visual": 2}
        stage = next((s for p, s in joins.items() if p in path), 0)
        moved = [not np.array_equal(a, b) for a, b in ((before[path], middle[path]),)]
        assert moved == [stage == 0], path
        assert np.array_equal(middle[path], later[path]) or stage < 2, path
        assert stage < 2 or not np.array_equal(later[path], end[path]), path


@pytest.mark.multiprocess
def test_a_stage_begins_with_the_best_weights_and_a_fresh_optimizer(staged, store):
    workdir, output = staged
    _, second, third = boundaries(workdir)
    scores = {r["step"]: r["ccc"] for r in read_metrics(workdir) if r["kind"] == "validation"}
    for begin in (second, third):
        best = max((s for s in scores if s <= begin), key=lambda s: scores[s])
        assert f"step {begin}: the weights of step {best}, the best so far" in output
    # One Adam step from rest moves nothing by more than the rate (and decay): from the best
    # weights, not from the latest.
    best = max((s for s in scores if s <= second), key=lambda s: scores[s])
    assert best != second
    from_best, after = (flat(weights_at(workdir, s)["params"]) for s in (best, second + 1))
    config = small_recipe(store.path, "quickstart:concat", **STAGED)
    rate, decay = config.optimizer.learning_rate, config.optimizer.weight_decay
    for path, x in from_best.items():
        limit = rate * (1.0 + decay * np.abs(x)) + 1e-5
        assert (np.abs(after[path] - x) <= limit).all(), path


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_run_killed_around_a_new_stage_continues_to_the_same_numbers(staged, store, tmp_path):
    whole, _ = staged
    _, second, third = boundaries(whole)
    killed = tmp_path / "killed"
    for line in (f"step {second}: the weights", f"step {third}/"):
        process = start(store, killed, keep=100)
        assert process.stdout is not None
        for text in process.stdout:
            if line in text:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
        assert process.returncode == -signal.SIGKILL
    assert "continuing from step" in finish(start(store, killed, keep=100))
    assert read_metrics(killed) == read_metrics(whole)
    last = max(r["step"] for r in read_metrics(whole))
    jax.tree.map(np.testing.assert_array_equal, weights_at(killed, last), weights_at(whole, last))


def test_the_run_is_no_longer_than_its_epochs(store, tmp_path):
    config = small_recipe(store.path, "quickstart:concat", **STAGED)
    config.train.num_epochs = 3.0
    config.train.plateau.patience = 50
    train(config, tmp_path / "run")
    steps = [r["step"] for r in read_metrics(tmp_path / "run") if r["kind"] == "validation"]
    assert len(steps) == 3
