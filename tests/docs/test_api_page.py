"""The page about Python: its examples run, print what it shows, and need public names alone."""

from __future__ import annotations

import doctest
import importlib.util
from pathlib import Path

import pytest

import maven_jax
from data_prep.prepare import prepare
from maven_jax import recipes
from maven_jax.progress import console
from maven_jax.training.train import train
from tests.support import corpora
from tests.support.recipes_for_tests import small_recipe
from tests.support.root import ROOT

PAGE = ROOT / "docs" / "api.md"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder as the page describes it."""
    monkeypatch.chdir(tmp_path)
    corpora.write_video(Path("clip.mp4"), frames=50, fps=25, sound_s=2.0)
    videos = {"a": "train", "b": "train", "c": "validation", "d": "validation"}
    corpora.write_tiny_corpus(Path("corpus"), videos)
    encoders = recipes.load("tiny", "encoders")
    modalities = ("visual", "audio")
    prepare(Path("corpus"), Path("stores/mine"), encoders, modalities=modalities, workers=1)
    config = small_recipe(
        Path("stores/mine"),
        "quickstart:concat",
        train__num_epochs=1.0,
        data__modalities=modalities,
    )
    train(config, Path("runs/mine"))
    return tmp_path


@pytest.mark.slow
def test_the_examples_run_as_they_are_written(place, monkeypatch):
    monkeypatch.setattr(console, "quiet", False)  # the page silences it; put back afterwards
    result = doctest.testfile(str(PAGE), module_relative=False, report=True)
    assert result.attempted > 40
    assert result.failed == 0


@pytest.mark.parametrize("name", maven_jax.__all__)
def test_a_public_name_is_described_and_hidden_by_no_submodule(name):
    assert hasattr(maven_jax, name)
    assert importlib.util.find_spec(f"maven_jax.{name}") is None
    if name != "__version__":
        assert f"`{name}" in (maven_jax.__doc__ or "")
