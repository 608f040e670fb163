"""Hostile inputs: refused in one line, or taken and right; see `python -m tests.hostile --help`."""

from __future__ import annotations

import pytest

from tests.hostile.harness import OUTCOMES, SLOW_PATIENCE, harness
from tests.hostile.kinds import KINDS
from tests.hostile.offences import ENDS

CASES, SLOW_CASES = 16, 2
SEED, OTHER_SEEDS = 0, range(1, 11)


@pytest.fixture(scope="session")
def runner():
    with harness() as one:
        yield one


def faults(runner, kind: str, seed: int) -> list[str]:
    cases = SLOW_CASES if KINDS[kind].slow else CASES
    patience = SLOW_PATIENCE if KINDS[kind].slow else 1
    ended = [runner.run(kind, seed, number, patience) for number in range(cases)]
    return [
        f"python -m tests.hostile --kind {kind} --seed {seed} --only {number}: {o.what}: {o.case}"
        for number, o in enumerate(ended)
        if o.what not in OUTCOMES[:2]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_of_each_kind(kind, runner):
    assert faults(runner, kind, SEED) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", OTHER_SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_many_hostile_inputs_of_each_kind(kind, seed, runner):
    assert faults(runner, kind, seed) == []


@pytest.mark.parametrize("name", ENDS)
def test_the_harness_notices(name, runner, monkeypatch):
    monkeypatch.setattr("tests.hostile.harness.LIMIT_S", 3.0 if name == "sleep" else 20.0)
    outcome = runner.run(name, SEED, 0)
    assert outcome.what == ENDS[name][0], outcome.said
