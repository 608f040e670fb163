"""The level of each recording: taken away as asked for, and chosen by recordings left out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.store.reader import Store
from maven_jax.training.centring import settle_centre
from maven_jax.training.train import train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store

SHARES = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("store") / "s"
    return write_small_store(folder, videos=5, frames=90, encoder="imported", offset_std=3.0)


def recipe(store: Store, **changes):
    values = dict(model__widths=(1, 15), optimizer__penalties=(0.01, 0.1), train__batch_size=1)
    return small_recipe(store.path, "ridge", **(values | dict(data__centre=SHARES) | changes))


def test_windows_lack_a_share_of_the_mean_of_their_whole_video(store):
    experiment = Experiment(recipe(store, data__centre=(0.5,), data__window__hop=20), store)
    windows = experiment.windows("train", train=True)
    batch = experiment.source(windows).read(np.arange(len(windows)))
    for number in range(len(windows)):
        entry, span = windows.entries[windows.video[number]], windows.frames(number)
        whole = store.read(entry, 0, entry.num_frames)
        for name in store.modalities:
            mean = np.asarray(whole.features[name], np.float64)[whole.masks[name]].mean(0)
            seen = whole.masks[name][span]
            expected = np.asarray(whole.features[name][span], np.float64)[seen] - 0.5 * mean
            found = batch["features"][name][number, : len(seen)][seen]
            np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize(("encoder", "offset_std"), [("imported", 0.0), ("random", 3.0)])
def test_levels_that_tell_something_stay_and_so_do_those_of_encoders(tmp_path, encoder, offset_std):
    other = write_small_store(
        tmp_path / "s", videos=5, frames=90, encoder=encoder, offset_std=offset_std
    )
    config = recipe(other)
    settle_centre(Experiment(config, other), tmp_path, Watchdog(math.inf))
    assert tuple(config.data.centre) == (0.0,)


def test_a_run_chooses_and_keeps_its_share(store, tmp_path, capsys):
    scores = train(recipe(store), tmp_path / "run")
    said = capsys.readouterr().out
    (share,) = json.loads((tmp_path / "run/config.json").read_text())["config"]["data"]["centre"]
    assert share > 0
    assert f"data.centre: {share:g} of each recording's mean is taken from its features" in said
    plain = train(recipe(store, data__centre=(0.0,)), tmp_path / "plain")
    assert scores is not None
    assert plain is not None
    assert scores["ccc"] > plain["ccc"]
    capsys.readouterr()
    train(recipe(store), tmp_path / "run")
    said = capsys.readouterr().out
    assert "it is solved" in said
    assert "data.centre" not in said


def test_a_share_that_concerns_no_feature_is_refused(tmp_path):
    other = write_small_store(tmp_path / "s", videos=2, frames=20)
    with pytest.raises(UserError, match=r"config\.data\.centre=0\.5: concerns features made else"):
        train(recipe(other, data__centre=(0.5,)), tmp_path / "run")


def test_choosing_needs_ridge(store, tmp_path):
    config = small_recipe(store.path, "quickstart:concat", data__centre=SHARES)
    with pytest.raises(UserError, match=r"config\.data\.centre=\(0\.0, 0\.5, 1\.0\): .*give one"):
        settle_centre(Experiment(config, store), tmp_path, Watchdog(math.inf))
