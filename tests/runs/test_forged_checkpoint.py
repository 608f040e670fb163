"""Checkpoints that were changed: the best one by its score, and arrays that cannot be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.inputs import read_json
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.trained_model import open_model
from maven_jax.runs.workdir import read_record
from maven_jax.runtime.seal import SEAL, digest_of_list, read_seal, seal
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("run")
    store = write_small_store(root / "store", videos=4, frames=100)
    keep = dict(keep_latest=3, keep_best=1)
    train(small_recipe(store.path, "quickstart:concat", checkpoint__keep=keep), root / "run")
    return root / "run"


@pytest.fixture
def checkpoints(run, tmp_path) -> Checkpoints:
    shutil.copytree(run, tmp_path / "run")
    return Checkpoints(tmp_path / "run", keep_latest=1, keep_best=1, read_only=True)


SCORES = {
    "cut": "{",
    "list": "[]",
    "another": '{"ccc": -1.0}',
    "nan": '{"ccc": NaN}',
    "text": '{"ccc": "1"}',
    "gone": None,
}


@pytest.mark.parametrize(
    ("sealed", "change"),
    [(True, c) for c in SCORES] + [(False, c) for c in SCORES if c != "another"],
)
def test_a_best_checkpoint_whose_score_was_changed_is_named(checkpoints, sealed, change, capsys):
    best = checkpoints.resolve("best")
    assert capsys.readouterr().out == ""
    folder = checkpoints.folder / str(best)
    if not sealed:
        (folder / SEAL).unlink()
    (folder / "metrics" / "metrics").unlink()
    if SCORES[change] is not None:
        (folder / "metrics" / "metrics").write_text(SCORES[change])
    assert checkpoints.resolve("best") != best
    said = capsys.readouterr().out
    assert f"the checkpoint of step {best} is damaged: " in said
    assert "another step may be taken for the best" in said


def test_a_seal_reads_nothing_outside_its_folder(checkpoints, capsys):
    folder = checkpoints.folder / str(checkpoints.resolve("latest"))
    files = read_seal(folder) | {"../../config.json": {"bytes": 1, "sha256": "x"}}
    write_json(folder / SEAL, {"files": files, "sha256": digest_of_list(files)})
    assert checkpoints.resolve("latest") != int(folder.name)
    assert "names '../../config.json', which is not in the folder" in capsys.readouterr().out


def test_arrays_that_claim_more_than_their_files_can_hold_are_refused(checkpoints):
    step = checkpoints.resolve("latest")
    folder = checkpoints.folder / str(step)
    shutil.rmtree(folder / "weights")
    tree = {"params": {"a": jnp.zeros(40_000_000)}, "model_state": {}}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "weights", tree)
    (folder / SEAL).unlink()
    seal(folder)
    with pytest.raises(UserError, match=r"arrays of 160,000,000 bytes in files of .*: damaged"):
        checkpoints.read_weights(step)


def not_json(path: Path) -> None:
    path.write_text("{")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("change", [not_json, pipe])
@pytest.mark.parametrize("reader", [open_model, lambda run: evaluate(run, "validation")])
def test_what_orbax_cannot_read_is_one_line(checkpoints, change, reader):
    folder = checkpoints.folder / str(checkpoints.resolve("best"))
    change(folder / "weights" / "_sharding")
    (folder / SEAL).unlink()
    seal(folder)
    with pytest.raises(UserError, match=r"checkpoints/\d.*(not a regular file|it may be damaged)"):
        reader(checkpoints.folder.parent)


def test_a_config_with_a_key_that_cannot_be_is_one_line(checkpoints):
    path = checkpoints.folder.parent / "config.json"
    record = read_json(path, "a record")
    record["config"]["../x"] = 1
    write_json(path, record)
    with pytest.raises(UserError, match=r"config\.json: .*\.\./x"):
        read_record(path.parent)
