"""Checkpoints that were damaged, half written or refused by the disk."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maven_jax import errors
from maven_jax.commands.train import main
from maven_jax.data.transforms import FeatureStatistics
from maven_jax.errors import UserError
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import read_metrics
from maven_jax.runtime.seal import find_fault
from maven_jax.state import TrainState, Weights
from maven_jax.store.reader import Store
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.root import ROOT
from tests.support.stores import write_small_store

STEPS = 6


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


RECIPE = """
from pathlib import Path
from tests.support.recipes_for_tests import small_recipe

def get_config(arg=""):
    return small_recipe(
        Path({store!r}), "quickstart:concat", checkpoint__every_steps=1,
        checkpoint__keep=dict(keep_latest={keep}, keep_best=1),
    )
"""


@pytest.fixture(scope="module")
def recipe(store, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.py"
    path.write_text(RECIPE.format(store=str(store.path), keep=100))
    return path


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Path:
    """A run of six steps with the checkpoints of the last three."""
    workdir = tmp_path_factory.mktemp("run") / "run"
    config = small_recipe(
        store.path,
        "quickstart:concat",
        checkpoint__every_steps=1,
        checkpoint__keep=dict(keep_latest=3, keep_best=1),
    )
    train(config, workdir)
    return workdir


@pytest.fixture
def workdir(run, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(run, tmp_path / "run")


def opened(workdir: Path, read_only: bool = False) -> Checkpoints:
    return Checkpoints(workdir, keep_latest=3, keep_best=1, read_only=read_only)


def steps_in(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def newest_usable(workdir: Path) -> int | None:
    checkpoints = opened(workdir)
    try:
        return checkpoints.newest_usable()
    finally:
        checkpoints.close()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def delete(path: Path) -> None:
    path.unlink()


DAMAGES = {flip: "other bytes|not as it was", truncate: "bytes|not as it was", delete: "missing"}
# Array data, the index and the description of arrays, JSON, and what orbax itself notes down.
FILES = [
    "weights/ocdbt.process_0/d/*",
    "optimizer/ocdbt.process_0/d/*",
    "optimizer/d/*",
    "weights/manifest.ocdbt",
    "weights/_METADATA",
    "weights/_sharding",
    "control/metadata",
    "position/metadata",
    "metrics/metrics",
    "_CHECKPOINT_METADATA",
]


def one_file(workdir: Path, step: int, pattern: str) -> Path:
    """The largest of the files that match."""
    found = sorted((workdir / "checkpoints" / str(step)).glob(pattern), key=os.path.getsize)
    return found[-1]


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    workdir, capsys, pattern, damage
):
    assert steps_in(workdir) == [4, 5, 6]
    path = one_file(workdir, 6, pattern)
    name = path.relative_to(workdir / "checkpoints" / "6").as_posix()
    damage(path)
    assert newest_usable(workdir) == 5
    printed = capsys.readouterr().out.replace("\n", " ")
    assert "the checkpoint of step 6 is damaged" in printed
    assert name in printed
    assert re.search(DAMAGES[damage], printed)
    assert steps_in(workdir) == [4, 5]
    assert (workdir / "damaged" / "6" / "seal.json").exists()
    assert newest_usable(workdir) == 5
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_damaged_seal_is_no_proof(workdir, capsys, damage):
    damage(workdir / "checkpoints" / "6" / "seal.json")
    assert newest_usable(workdir) == 5
    assert "seal.json is not as it was written" in capsys.readouterr().out.replace("\n", " ")


def test_whole_checkpoints_are_left_alone(workdir, capsys):
    assert newest_usable(workdir) == 6
    assert steps_in(workdir) == [4, 5, 6]
    assert capsys.readouterr().out == ""
    assert not (workdir / "damaged").exists()


def test_a_workdir_without_checkpoints_has_none(tmp_path):
    assert newest_usable(tmp_path / "run") is None


@pytest.mark.parametrize("pattern", [*FILES[:5], *FILES[6:9]])
@pytest.mark.parametrize("damage", [truncate, delete])
def test_a_checkpoint_without_a_seal_is_tried_by_reading(workdir, capsys, pattern, damage):
    (workdir / "checkpoints" / "6" / "seal.json").unlink()
    assert newest_usable(workdir) == 6
    damage(one_file(workdir, 6, pattern))
    assert newest_usable(workdir) == 5
    assert "cannot be read" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("item", ["weights", "optimizer", "control"])
def test_a_checkpoint_without_a_seal_has_all_that_training_needs(workdir, capsys, item):
    (workdir / "checkpoints" / "6" / "seal.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "6" / item)
    assert newest_usable(workdir) == 5
    assert f"{item} is missing" in capsys.readouterr().out


def test_several_damaged_checkpoints_in_a_row(workdir, capsys):
    for step in (6, 5):
        flip(one_file(workdir, step, FILES[0]))
    assert newest_usable(workdir) == 4
    printed = capsys.readouterr().out
    assert printed.index("step 6 is damaged") < printed.index("step 5 is damaged")
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["5", "6"]


def test_a_run_does_not_start_afresh_when_all_its_checkpoints_are_damaged(workdir, capsys):
    for step in (4, 5, 6):
        truncate(one_file(workdir, step, FILES[0]))
    for _ in range(2):  # and the same command does not either
        with pytest.raises(UserError, match="every checkpoint is damaged; put back a copy"):
            newest_usable(workdir)
    assert steps_in(workdir) == [4, 5, 6]
    assert capsys.readouterr().out.count("is damaged") == 6


def test_an_old_damaged_one_does_not_stop_the_run(workdir):
    (workdir / "checkpoints" / "5" / "metrics").mkdir(exist_ok=True)
    (workdir / "checkpoints" / "5" / "metrics" / "metrics").write_text("{")
    delete(one_file(workdir, 5, FILES[0]))
    assert newest_usable(workdir) == 6
    assert steps_in(workdir) == [4, 6]


def test_a_second_damaged_checkpoint_of_a_step_does_not_cover_the_first(workdir, run):
    for _ in range(2):
        shutil.rmtree(workdir / "checkpoints" / "6", ignore_errors=True)
        shutil.copytree(run / "checkpoints" / "6", workdir / "checkpoints" / "6")
        flip(one_file(workdir, 6, FILES[0]))
        assert newest_usable(workdir) == 5
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["6", "6-2"]


def test_evaluation_passes_over_damaged_checkpoints_and_moves_nothing(workdir, capsys):
    best = opened(workdir, read_only=True).resolve("best")
    flip(one_file(workdir, 6, FILES[0]))
    checkpoints = opened(workdir, read_only=True)
    assert best == 6
    assert checkpoints.resolve("latest") == 5
    assert checkpoints.resolve("best") == 5  # none that is left was evaluated: the latest
    assert checkpoints.resolve("4") == 4
    assert "step 6 is damaged" in capsys.readouterr().out
    with pytest.raises(UserError, match="no checkpoint '6' that is not damaged"):
        checkpoints.resolve("6")
    with pytest.raises(UserError, match=r"no checkpoint '7'; there are \[4, 5, 6\]"):
        checkpoints.resolve("7")
    checkpoints.close()
    assert steps_in(workdir) == [4, 5, 6]


def test_training_goes_on_from_the_checkpoint_before(store, run, workdir, capsys):
    truncate(one_file(workdir, 6, FILES[1]))
    config = small_recipe(
        store.path,
        "quickstart:concat",
        checkpoint__every_steps=1,
        checkpoint__keep=dict(keep_latest=3, keep_best=1),
    )
    train(config, workdir)
    assert "continuing from step 5 of 6" in capsys.readouterr().out
    assert read_metrics(workdir) == read_metrics(run)
    same_weights(workdir, run)


def same_weights(workdir: Path, other: Path) -> None:
    trees = []
    for folder in (workdir, other):
        checkpoints = opened(folder, read_only=True)
        trees.append(checkpoints.read_weights(STEPS)["params"])
        checkpoints.close()
    for ours, theirs in zip(*(leaves(tree) for tree in trees), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def leaves(tree) -> list[np.ndarray]:
    return jax.tree.leaves(tree)


# What a process leaves that dies in the middle.

DIES = {
    "in orbax's commit": (
        "from orbax.checkpoint._src.path import atomicity\n"
        "async def die(self):\n"
        "    if self.get_final().name == '4': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    await finalize(self)\n"
        "finalize = atomicity.AtomicRenameTemporaryPath.finalize\n"
        "atomicity.AtomicRenameTemporaryPath.finalize = die\n"
    ),
    "between commit and seal": (
        "from maven_jax.runtime import seal as module\n"
        "def die(folder):\n"
        "    if folder.name == '4': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    seal(folder)\n"
        "seal, module.seal = module.seal, die\n"
    ),
    "while sealing": (
        "def die(source, target):\n"
        "    if str(target).endswith('/4/seal.json'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(source, target)\n"
        "replace, os.replace = os.replace, die\n"
    ),
}
MAIN = "from maven_jax.__main__ import main\nsys.exit(main(sys.argv[1:]))"


def command(
    recipe: Path, workdir: Path, before: str = "", **options
) -> subprocess.CompletedProcess:
    """`maven-jax train`, with a few lines of Python before it begins."""
    program = f"import os, signal, sys\n{before}\n{MAIN}"
    arguments = ["train", "--config", str(recipe), "--workdir", str(workdir)]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


@pytest.mark.multiprocess
@pytest.mark.parametrize("moment", DIES)
def test_a_kill_around_the_commit_loses_nothing(recipe, run, tmp_path, capsys, moment):
    killed = command(recipe, tmp_path / "run", DIES[moment])
    assert killed.returncode == -signal.SIGKILL
    left = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    committed = moment != "in orbax's commit"
    assert ("4" in left) == committed
    assert ("4.orbax-checkpoint-tmp" in left) != committed
    assert not (tmp_path / "run" / "checkpoints" / "4" / "seal.json").exists()
    assert main(["--config", str(recipe), "--workdir", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert f"continuing from step {4 if committed else 3} of 6" in said
    assert "damaged" not in said
    assert read_metrics(tmp_path / "run") == read_metrics(run)
    same_weights(tmp_path / "run", run)
    left = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert all(name.isdigit() for name in left), left


def test_leftovers_of_killed_runs_are_cleared_away(workdir, capsys):
    folder = workdir / "checkpoints"
    shutil.copytree(folder / "6", folder / "7.orbax-checkpoint-tmp")
    (folder / ".deleted").mkdir()
    shutil.copytree(folder / "6", folder / ".deleted" / "3")
    delete(folder / ".deleted" / "3" / "weights" / "manifest.ocdbt")
    assert opened(workdir, read_only=True).resolve("latest") == 6
    assert newest_usable(workdir) == 6
    assert sorted(p.name for p in folder.iterdir()) == ["4", "5", "6"]
    assert capsys.readouterr().out == ""


# A disk that takes no more.


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.multiprocess
def test_a_full_disk_ends_in_one_line_and_older_checkpoints_stay_whole(
    recipe, run, small_disk, capsys
):
    workdir = small_disk / "run"
    failed = command(recipe, workdir)
    assert failed.returncode == 2, failed.stderr
    message = one_line(failed.stderr)
    assert "the disk is full" in message
    assert "the same command continues" in message
    kept = steps_in(workdir)
    assert kept
    assert kept[-1] < STEPS
    for step in kept:
        assert find_fault(workdir / "checkpoints" / str(step)) is None
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    assert main(["--config", str(recipe), "--workdir", str(workdir)]) == 0
    assert f"continuing from step {kept[-1]} of 6" in capsys.readouterr().out
    same_weights(workdir, run)


@pytest.mark.multiprocess
def test_a_file_that_may_not_grow_ends_in_one_line(recipe, workdir):
    shutil.rmtree(workdir / "checkpoints" / "6")
    seals = [workdir / "checkpoints" / str(step) / "seal.json" for step in (4, 5)]
    before = [seal.read_text() for seal in seals]
    config = workdir / "config.json"
    config.write_text(config.read_text().replace('"keep_latest": 3', '"keep_latest": 100'))
    # Enough for all that is written but the arrays.
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    # The programs' cache cannot be written either.
    limit += f"os.environ['JAX_COMPILATION_CACHE_DIR'] = {str(workdir / 'cache')!r}\n"
    failed = command(recipe, workdir, limit)
    assert failed.returncode == 2, failed.stderr
    message = one_line(failed.stderr)
    assert "files may not grow that large" in message
    assert "the checkpoint of step 6 could not be written (whole: those of steps [4, 5])" in message
    assert steps_in(workdir) == [4, 5]
    assert [seal.read_text() for seal in seals] == before
    for seal in seals:
        assert find_fault(seal.parent) is None


def test_the_reason_is_found_at_the_root_of_an_error():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = ExceptionGroup("several", [ValueError("no"), full])
    told = ValueError(
        "RESOURCE_EXHAUSTED: Error writing d/1 [OS error 28: No space left on device]"
    )
    for error in (full, wrapped, told):
        assert errors.disk_refusal(error) == "the disk is full"
    assert errors.disk_refusal(PermissionError(errno.EACCES, "denied")) is None
    assert errors.disk_refusal(None) is None


# Checkpoints of other models.


def state_of(**params) -> TrainState:
    params = {name: jnp.asarray(x) for name, x in params.items()}
    statistics = FeatureStatistics(mean={"audio": jnp.zeros(3)}, std={"audio": jnp.ones(3)})
    weights = Weights(params=params, model_state={}, statistics=statistics)
    opt_state = optax.chain(optax.clip(1.0), optax.adam(0.1)).init(params)
    return TrainState(
        step=jnp.int32(3), weights=weights, opt_state=opt_state, lr_scale=jnp.float32(0.5)
    )


def test_an_average_is_saved_as_the_weights_to_predict_with(tmp_path):
    checkpoints = opened(tmp_path)
    state = state_of(kernel=np.ones(3, np.float32))
    state = state.replace(average={"kernel": np.full(3, 2.0, np.float32)})
    checkpoints.save(3, state, {}, {})
    checkpoints.wait()
    restored, _ = checkpoints.restore(3, state)
    for ours, theirs in zip(leaves(restored), leaves(state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    weights = checkpoints.restore_weights(3, state.weights)
    np.testing.assert_array_equal(weights.params["kernel"], [2, 2, 2])


def test_state_and_position_come_back(tmp_path):
    checkpoints = opened(tmp_path)
    state = state_of(kernel=np.arange(6.0, dtype=np.float32).reshape(2, 3), bias=np.ones(3))
    checkpoints.save(3, state, {"next_index": 7, "mixed": [1, 2]}, {"stage": 1})
    checkpoints.wait()
    restored, position = checkpoints.restore(3, state)
    assert position == {"next_index": 7, "mixed": [1, 2]}
    assert checkpoints.control(3) == {"stage": 1}
    for ours, theirs in zip(leaves(restored), leaves(state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    checkpoints.close()


FLOATS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"kernel": np.ones((2, 3), jnp.bfloat16)},
            r"kernel is float32\[2, 3\] there, bfloat16\[2, 3\] in the model",
        ),
        ({"kernel": np.ones((2, 4), np.float32)}, r"float32\[2, 3\] there, float32\[2, 4\] in"),
        ({"kernel": FLOATS, "bias": np.ones(3)}, "params/bias is not in it"),
        ({"other": FLOATS}, "params/other is not in it; params/kernel is not in the model"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_in_one_line(tmp_path, params, message):
    checkpoints = opened(tmp_path)
    checkpoints.save(3, state_of(kernel=FLOATS), {}, {})
    checkpoints.wait()
    like = state_of(**params)
    for restore in (
        lambda: checkpoints.restore(3, like),
        lambda: checkpoints.restore_weights(3, like.weights),
    ):
        with pytest.raises(UserError, match=message) as caught:
            restore()
        assert "\n" not in str(caught.value)
    checkpoints.close()


def test_a_position_of_an_earlier_version_is_refused_in_one_line(workdir):
    shutil.rmtree(workdir / "checkpoints" / "6" / "position")
    (workdir / "checkpoints" / "6" / "seal.json").unlink()
    checkpoints = opened(workdir)
    assert checkpoints.newest_usable() == 6
    checkpoints.close()


def test_what_is_no_longer_kept_goes(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_latest=2, keep_best=1)
    state = state_of(kernel=FLOATS)
    for step, ccc in ((1, None), (2, 0.9), (3, 0.1), (4, None), (5, None)):
        checkpoints.save(step, state, {}, {}, None if ccc is None else {"ccc": ccc})
    checkpoints.wait()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4", "5"]
    assert (checkpoints.best_step, checkpoints.latest_step) == (2, 5)
    checkpoints.close()
    assert (opened(tmp_path, read_only=True).best_step) == 2
