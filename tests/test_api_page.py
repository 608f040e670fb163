"""The page about Python says what is so: its examples are run, and print what stands there."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from maven_jax import train
from maven_jax.progress import console
from tests.recipes_for_tests import small_recipe
from tests.stores import write_small_store

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder as the page describes it."""
    monkeypatch.chdir(tmp_path)
    write_small_store(Path("stores/mine"), videos=4, frames=120)
    config = small_recipe(Path("stores/mine"), "quickstart:concat", train__num_epochs=1.0)
    train.run(config, Path("runs/mine"))
    return tmp_path


def test_the_examples_run_as_they_are_written(place, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)  # the page turns it on; here that ends with it
    result = doctest.testfile(str(PAGE), module_relative=False, report=True)
    assert result.attempted > 40
    assert result.failed == 0
