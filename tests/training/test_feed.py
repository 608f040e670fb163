"""Training on features that lie on the devices, and training on streamed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from maven_jax.errors import UserError
from maven_jax.runs.metrics import read_metrics
from maven_jax.store.reader import Store
from maven_jax.training import feed as feeding
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


def rows_of(store: Store, workdir: Path, **changes) -> list[dict]:
    # Stretches of 5, 1, 4 and 2 steps: to a log line or an evaluation.
    cadence = dict(train__log_every_steps=5, train__eval_every_epochs=2.0)
    changes = dict(train__num_epochs=4.0) | cadence | changes
    train(small_recipe(store.path, "quickstart:concat", **changes), workdir)
    return read_metrics(workdir)


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert [(r["step"], r["kind"]) for r in found] == [(r["step"], r["kind"]) for r in expected]
    for a, b in zip(found, expected):
        assert a.keys() == b.keys()
        for key in ("loss", "grad_norm", "learning_rate", "ccc"):
            if key in a:
                assert a[key] == pytest.approx(b[key], abs=2e-5)


@pytest.fixture(scope="module")
def streamed(store, tmp_path_factory) -> list[dict]:
    rows = rows_of(store, tmp_path_factory.mktemp("streamed"))
    assert [r["step"] for r in rows if r["kind"] == "train"] == [1, 5, 10]
    return rows


@pytest.mark.parametrize("at_once", [1, 4])
def test_resident_features_train_as_streamed_ones(
    store, streamed, at_once, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(feeding, "steps_at_once", lambda experiment: at_once)
    found = rows_of(store, tmp_path, data__resident=True)
    assert "GiB of features per device" in capsys.readouterr().out
    assert_same(found, streamed)


def test_a_run_may_change_from_one_to_the_other(store, streamed, tmp_path):
    rows_of(store, tmp_path, checkpoint__every_steps=5, train__num_epochs=4.0)
    for folder in (tmp_path / "checkpoints").iterdir():
        if folder.name != "5" and folder.name.isdigit():
            folder.rename(tmp_path / folder.name)
    rows = rows_of(store, tmp_path, checkpoint__every_steps=5, data__resident=True)
    assert_same(rows, streamed)


def test_features_that_do_not_fit_are_streamed(store, streamed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feeding, "free_bytes", lambda: 1000)
    found = rows_of(store, tmp_path, data__resident=True)
    assert "they are streamed instead" in capsys.readouterr().out
    assert found == streamed


def test_mixed_stores_cannot_be_resident(store, tmp_path):
    mix = {"more": {"store": str(store.path), "split": "train", "weight": 1.0}}
    with pytest.raises(UserError, match="does not go with"):
        rows_of(store, tmp_path, data__resident=True, data__mix=mix)
