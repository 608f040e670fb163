"""A run that records some of its steps trains as one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from maven_jax.runs.metrics import read_metrics
from maven_jax.runtime import trace
from maven_jax.store.reader import Store
from maven_jax.training import feed as feeding
from maven_jax.training.profile import steps_to_record
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


def run(store: Store, workdir: Path, steps: int, resident: bool) -> list[dict]:
    """The rows that it logged."""
    changes = dict(
        train__num_epochs=8.0,  # 24 steps
        train__eval_every_epochs=5.0,
        train__log_every_steps=8,
        checkpoint__every_steps=12,
        data__resident=resident,
    )
    config = small_recipe(store.path, "quickstart:concat", **changes)
    train(config, workdir, profile_steps=steps)
    return read_metrics(workdir)


@pytest.mark.parametrize(("resident", "at_once"), [(False, 1), (True, 8)])
def test_a_recorded_run_computes_the_same_bits(
    store, resident, at_once, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(feeding, "steps_at_once", lambda experiment: at_once)
    recorded = []
    summarize = trace.summarize
    monkeypatch.setattr(
        trace, "summarize", lambda *a: recorded.append(summarize(*a)) or recorded[-1]
    )
    plain = run(store, tmp_path / "plain", 0, resident)
    assert "profile" not in capsys.readouterr().out
    profiled = run(store, tmp_path / "profiled", 3, resident)
    assert profiled == plain
    out = capsys.readouterr().out
    assert out.count("3 steps: ") == 1
    assert "profile of steps 13 to 15: tensorboard" in out
    assert len(list((tmp_path / "profiled" / "profile").rglob("*.xplane.pb"))) == 1
    # Most operations run once a step: with resident features, in one call of three turns.
    (summary,) = recorded
    assert 1.0 in {round(o.times, 2) for o in summary.longest}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 5, 100, (1000,)), range(10, 15)),
        ((40, 5, 100, (1000,)), range(50, 55)),
        ((0, 5, 100, (12,)), range(12, 17)),
        ((0, 50, 100, (20, 1000)), range(20, 40)),
        ((0, 5, 12, (1000,)), range(10, 12)),
        ((0, 5, 10, (1000,)), range(0)),
    ],
)
def test_no_evaluation_is_recorded(arguments, expected):
    assert steps_to_record(*arguments) == expected
