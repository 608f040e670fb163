"""The parts of a run: built once, and for the devices that are here."""

from __future__ import annotations

import pytest

from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.store.reader import Store
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=2, frames=60)


def test_modalities_that_a_recipe_does_not_name_are_those_of_the_store(store):
    config = small_recipe(store.path)
    config.data.modalities = ()
    assert tuple(Experiment.of(config).modalities) == ("visual", "audio", "text")


@pytest.mark.parametrize("key", ["modalities", "single_vector"])
def test_a_modality_that_the_store_lacks_is_named_with_its_key(store, key):
    changes = {f"data__{key}": {"visul": None} if key == "single_vector" else ("visul",)}
    config = small_recipe(store.path, **changes)
    with pytest.raises(UserError, match=rf"config\.data\.{key}: .*did you mean 'visual'"):
        Experiment.of(config)


def test_an_example_has_the_shapes_and_types_of_a_window(store):
    experiment = Experiment.of(small_recipe(store.path, data__single_vector={"text": None}))
    window = experiment.source(experiment.windows("train", train=True)).read([0])
    example = experiment.example()
    for m in experiment.modalities:
        assert example.features[m].shape == window["features"][m].shape
        assert example.features[m].dtype == window["features"][m].dtype
        assert example.modality_masks[m].shape == window["modality_masks"][m].shape
    assert example.targets.shape == window["targets"].shape


def test_on_this_machine_the_mesh_is_its_own_and_the_recipe_stays(store):
    config = small_recipe(store.path, mesh__data=64, mesh__model=2)
    experiment = Experiment.of(config)
    here = experiment.on_this_machine()
    assert dict(here.mesh.shape) == {"data": 1, "model": 1}
    assert here.config.eval.batch_size == config.eval.batch_size
    assert here.store is experiment.store
    with pytest.raises(UserError, match="data=64 x model=2"):
        _ = experiment.mesh
