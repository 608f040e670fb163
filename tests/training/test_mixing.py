"""`data.mix`: training on several stores, scored and standardised by the main one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.runs import workdir
from maven_jax.runs.metrics import read_metrics
from maven_jax.runs.workdir import read_record
from maven_jax.store.reader import Store
from maven_jax.training import mixing, train
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("mixing")
    return {
        "main": write_small_store(folder / "main", videos=4, frames=150),
        "other": write_small_store(folder / "other", videos=2, frames=150, seed=1),
        "narrow": write_small_store(folder / "narrow", videos=2, modalities={"visual": 4}),
        "wider": write_small_store(
            folder / "wider", videos=2, modalities={"visual": 9, "audio": 6, "text": 4}
        ),
    }


def recipe(stores, **sections) -> ConfigDict:
    config = small_recipe(stores["main"].path, "quickstart:concat")
    config.data.modalities = ("visual", "audio", "text")
    config.data.mix = {
        name: dict(store=str(stores["other"].path), split="train", weight=0.5) | section
        for name, section in sections.items()
    }
    return config


def test_a_run_on_mixed_stores_has_the_main_ones_statistics_and_knows_its_stores(stores, tmp_path):
    config = recipe(stores, extra={"weight": 2.0})
    config.train.num_epochs = config.train.eval_every_epochs = 1.0
    train.train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert record["mix_fingerprints"] == {"extra": stores["other"].fingerprint}
    windows = Experiment.of(config).windows("train", train=True)
    steps = max(row["step"] for row in read_metrics(tmp_path / "run"))
    assert steps == -(-len(windows) * 3 // 8)
    config, record = read_record(tmp_path / "run")
    experiment = Experiment.of(config)
    statistics = experiment.statistics
    np.testing.assert_allclose(
        statistics.mean["visual"], stores["main"].statistics["visual"].mean, rtol=1e-6
    )
    # The same contents elsewhere are the same run; other contents are another.
    claimed = (tmp_path / "run", experiment)
    config.data.mix.extra.store = "moved"
    workdir.claim(*claimed, {"extra": stores["other"]}, [])
    with pytest.raises(UserError, match=r"other features than .*main"):
        workdir.claim(*claimed, {"extra": stores["main"]}, [])
    config.data.mix.extra.weight = 1.0
    with pytest.raises(UserError, match=r"data\.mix\.extra\.weight \(2\.0 there, 1\.0 now\)"):
        workdir.claim(*claimed, {"extra": stores["other"]}, [])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"weight": 0.0}, r"mix\.extra\.weight=0\.0: .* multiple of 0\.001"),
        ({"weight": 0.0305001}, "multiple of 0.001"),
        ({"weight": "much"}, r"weight='much'"),
        ({"split": "trian"}, "no split 'trian'; did you mean 'train'"),
        ({"wieght": 1.0}, r"data\.mix\.extra has a key 'wieght'"),
        ({"store": "main", "split": "validation"}, "is what the run is evaluated on"),
        ({"store": "narrow"}, "has no modality 'audio'"),
        ({"store": "wider"}, r"mix\.extra: .*visual is 9 wide there"),
    ],
)
def test_impossible_mixtures_are_refused(stores, section, message):
    if "store" in section:
        section = section | {"store": str(stores[section["store"]].path)}
    with pytest.raises(UserError, match=message):
        mixing.open_mixed(Experiment.of(recipe(stores, extra=section)))


def test_the_store_of_a_fold_is_not_mixed_in_again(stores):
    config = recipe(stores, extra={"store": str(stores["main"].path)})
    experiment = Experiment.of(config)
    assert mixing.open_mixed(experiment)
    config.data.fold = 1
    with pytest.raises(UserError, match="is what the run is evaluated on"):
        mixing.open_mixed(experiment)
