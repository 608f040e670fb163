from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax import ccc
from maven_jax.errors import UserError
from maven_jax.media.annotations import write_annotation
from maven_jax.runs.evaluate import evaluate
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that looked three times at its validation split, and a folder of labels."""
    folder = tmp_path_factory.mktemp("labels")
    store = write_small_store(
        folder / "s", videos=4, frames=60, splits=("train", "validation", "test")
    )
    config = small_recipe(store.path, "quickstart:concat", train__num_epochs=3.0)
    train(config, folder / "run")
    rng = np.random.default_rng(0)
    for entry in store.videos("test"):
        rows = rng.uniform(-1, 1, (entry.num_frames, 2))
        rows[3] = -5
        write_annotation(folder / "labels" / f"{entry.video}.txt", rows)
    return folder, store


def test_labels_from_files_take_the_place_of_the_stores(run, capsys):
    folder, store = run
    scores = evaluate(folder / "run", "test", labels=folder / "labels")
    rows = []
    for entry in store.videos("test"):
        predicted = np.loadtxt(
            folder / f"run/eval/test/{entry.video}.csv", delimiter=",", skiprows=1, usecols=(2, 3)
        )
        labels = np.loadtxt(folder / f"labels/{entry.video}.txt", delimiter=",", skiprows=1)
        keep = labels[:, 0] != -5
        assert not keep[3]
        rows.append((predicted[keep], labels[keep]))
    x, y = (jnp.asarray(np.concatenate(part), jnp.float32) for part in zip(*rows))
    valence, arousal = ccc(x, y)
    assert scores["ccc_valence"] == pytest.approx(float(valence), abs=1e-4)
    assert scores["ccc_arousal"] == pytest.approx(float(arousal), abs=1e-4)
    assert json.loads((folder / "run/eval/test.json").read_text())["labels"].endswith("labels")
    assert "flatters" not in capsys.readouterr().out


def test_a_score_says_which_split_chose_the_step(run, capsys):
    folder, _ = run
    best = evaluate(folder / "run", "validation")
    assert best["chosen_by"] == {"split": "validation", "looks": 3}
    out = capsys.readouterr().out
    assert "(best of 3 on validation)" in out
    assert "validation chose the step, so the score flatters" in out
    latest = evaluate(folder / "run", "validation", which="latest")
    assert latest["chosen_by"] is None
    assert "flatters" not in capsys.readouterr().out


def test_missing_and_unequal_labels_are_said(run, tmp_path, capsys):
    folder, store = run
    entry = store.videos("train")[0]
    write_annotation(tmp_path / f"{entry.video}.txt", np.zeros((entry.num_frames + 2, 2)))
    scores = evaluate(folder / "run", "train", labels=tmp_path)
    assert scores["num_frames"] == entry.num_frames
    out = capsys.readouterr().out
    assert "no labels for 3 of 4 videos" in out
    assert "unequal lengths of 1 of 4 videos" in out
    with pytest.raises(UserError, match="no labels for any of"):
        evaluate(folder / "run", "test", labels=tmp_path)
