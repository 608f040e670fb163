"""A checkpoint fits other meshes and process counts; weights alone begin another run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from maven_jax import recipes
from maven_jax.commands.train import main
from maven_jax.errors import UserError
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import read_metrics
from maven_jax.store.reader import Store
from maven_jax.training.initial_weights import init_from
from tests.support.processes import xla_flags
from tests.support.recipes_for_tests import small_recipe
from tests.support.root import ROOT
from tests.support.stores import write_small_store

RECIPE = """
from pathlib import Path
from tests.support.recipes_for_tests import small_recipe

def get_config(arg=""):
    return small_recipe(
        Path({store!r}), {name!r}, checkpoint__every_steps={every},
        checkpoint__keep=dict(keep_latest=100, keep_best=1),
    )
"""
MAIN = (
    "import os, signal, sys\n{}\nfrom maven_jax.__main__ import main\nsys.exit(main(sys.argv[1:]))"
)
LIMIT = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


def write_recipe(folder: Path, store: Store, name: str, every: int) -> Path:
    path = folder / "recipe.py"
    path.write_text(RECIPE.format(store=str(store.path), name=name, every=every))
    return path


def run(
    recipe: Path, workdir: Path, *options: str, devices: int, before: tuple[str, ...] = ("",)
) -> list[tuple[int, str, str]]:
    """`maven-jax train` in as many processes as there are entries in `before`.

    Args:
        recipe: the recipe's file.
        workdir: of the run.
        options: further arguments.
        devices: simulated devices of each process.
        before: lines of Python that each process runs first.

    Returns:
        Exit code, output and error output of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": xla_flags(devices),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = ["train", "--config", str(recipe), "--workdir", str(workdir), *options]
    count = len(before)
    with contextlib.ExitStack() as stack:
        processes = []
        for i, program in enumerate(before):
            several = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(count)]
            several += ["--process-id", str(i)]
            process = subprocess.Popen(
                [sys.executable, "-c", MAIN.format(program), *command]
                + (several if count > 1 else []),
                stdout=stack.enter_context((workdir.parent / f"out-{i}").open("w")),
                stderr=stack.enter_context((workdir.parent / f"error-{i}").open("w")),
                env=environment,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        codes = [process.wait(timeout=1200) for process in processes]
    texts = [
        [(workdir.parent / f"{kind}-{i}").read_text() for kind in ("out", "error")]
        for i in range(count)
    ]
    return [(code, out, error) for code, (out, error) in zip(codes, texts)]


@pytest.fixture(scope="module")
def recipe(store, tmp_path_factory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("recipe"), store, "quickstart", 3)


FSDP = "--config.mesh.fsdp=True"


@pytest.fixture(scope="module")
def undisturbed(recipe, tmp_path_factory) -> Path:
    """Six steps on eight devices along data, parameters split over them."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    [(code, _, error)] = run(recipe, workdir, "--config.mesh.data=8", FSDP, devices=8)
    assert code == 0, error
    return workdir


def half_way(whole: Path, folder: Path) -> Path:
    """The workdir as it was after three of the six steps."""
    workdir = shutil.copytree(whole, folder / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["3"]
    return workdir


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    weights = checkpoints.read_weights(step)
    checkpoints.close()
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(weights)}


def assert_continued(workdir: Path, whole: Path, printed: str) -> None:
    assert "continuing from step 3 of 6" in printed
    ours, theirs = read_metrics(workdir), read_metrics(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert ours[:3] == theirs[:3]  # what was written before is kept as it is
    for one, other in zip(ours, theirs):
        key = "loss" if one["kind"] == "train" else "ccc"
        assert one[key] == pytest.approx(other[key], abs=1e-5)
    expected, found = arrays(whole, 6), arrays(workdir, 6)
    assert expected.keys() == found.keys()
    for name, x in expected.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_checkpoint_of_eight_devices_really_is_split(undisturbed):
    described = json.loads(
        (undisturbed / "checkpoints" / "3" / "weights" / "_sharding").read_text()
    )
    assert any("data" in spec for spec in described.values()), described


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("devices", "processes", "mesh"),
    [
        pytest.param(4, 1, (2, 2), id="2x2", marks=pytest.mark.slow),
        pytest.param(1, 1, (1, 1), id="1x1", marks=pytest.mark.slow),
        pytest.param(1, 2, (2, 1), id="two processes", marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_of_eight_devices_continues_elsewhere(
    recipe, undisturbed, tmp_path, devices, processes, mesh
):
    workdir = half_way(undisturbed, tmp_path)
    options = [f"--config.mesh.data={mesh[0]}", f"--config.mesh.model={mesh[1]}"]
    options += [FSDP] if mesh[0] > 1 else []
    ended = run(recipe, workdir, *options, devices=devices, before=("",) * processes)
    assert [code for code, _, _ in ended] == [0] * processes, ended
    assert_continued(workdir, undisturbed, ended[0][1])
    # Written by these processes, and whole; the run can go back to one device with it.
    checkpoints = Checkpoints(workdir, keep_latest=100, keep_best=1)
    assert checkpoints.newest_usable() == 6
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_processes_agree_on_the_checkpoint_before_a_damaged_one(recipe, undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed, tmp_path / "run")
    (workdir / "checkpoints" / "6" / "weights" / "manifest.ocdbt").write_bytes(b"")
    ended = run(recipe, workdir, "--config.mesh.data=2", devices=1, before=("", ""))
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "step 6 is damaged: weights/manifest.ocdbt has 0 bytes" in ended[0][1].replace("\n", " ")
    assert "damaged" not in ended[1][1]
    assert_continued(workdir, undisturbed, ended[0][1])


@pytest.mark.multiprocess
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_refuses_one_process_ends_all_with_a_line(store, tmp_path, victim):
    recipe = write_recipe(tmp_path, store, "quickstart:concat", 1)
    before = tuple(LIMIT if i == victim else "" for i in range(2))
    ended = run(recipe, tmp_path / "run", "--config.mesh.data=2", FSDP, devices=1, before=before)
    for i, (code, _, error) in enumerate(ended):
        assert code == 2, ended
        ours = "" if i == victim else f"process {victim} ended: "
        assert f"[process {i}] maven-jax: {ours}{tmp_path}" in error
        assert "files may not grow that large" in error
        assert "Traceback" not in error


# Weights alone.


def test_a_run_begins_with_the_weights_of_another_and_nothing_else(store, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    recipe = write_recipe(tmp_path, store, "quickstart:concat", 1)
    arguments = ["--config", str(recipe), "--config.train.num_epochs=1.0"]
    assert main([*arguments, "--workdir", str(first)]) == 0
    capsys.readouterr()
    rate = 1e-4
    arguments += [f"--config.optimizer.learning_rate={rate}", "--workdir", str(second)]
    arguments += ["--init-from", str(first)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"/ starts from {first}" in printed.replace("\n", " ")
    assert "continuing" not in printed
    steps = [row["step"] for row in read_metrics(second) if row["kind"] == "train"]
    assert steps == [1, 2, 3]  # from the beginning, at the schedule's and the data's beginning
    assert read_metrics(second)[0]["learning_rate"] <= rate
    # One Adam step from rest moves no value by more than the rate, and its decay.
    checkpoints = Checkpoints(first, keep_latest=1, keep_best=1, read_only=True)
    began = arrays(first, checkpoints.resolve("best"))
    checkpoints.close()
    for name, x in arrays(second, 1).items():
        np.testing.assert_allclose(x, began[name], rtol=0, atol=2 * rate, err_msg=name)
    # The same command continues, and is not told that it is another run.
    assert main(arguments) == 0
    assert "continuing from step 3 of 3" in capsys.readouterr().out


def test_init_from_does_not_come_on_top_of_other_weights(store, tmp_path):
    config = small_recipe(store.path, "quickstart:concat", train__init={"encoder": "there"})
    with pytest.raises(UserError, match=r"train.init.encoder is set too; use one of the two"):
        init_from(config, str(tmp_path))
    config = small_recipe(store.path, "quickstart:concat")
    init_from(config, str(tmp_path))
    assert recipes.plain(config.train.init) == {"/": str(tmp_path)}
