"""Meshes, logical axes, and batches that several processes place together."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.recipes import check_sections
from maven_jax.runtime.sharding import _sharding, logical_rules, make_mesh, process_rows
from tests.support.processes import run_processes
from tests.support.recipes_for_tests import small_recipe
from tests.support.stores import write_small_store


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(UserError, match="device"):
        make_mesh(data=jax.device_count() + 1, model=1)
    with pytest.raises(UserError, match="device"):
        make_mesh(data=-1, model=jax.device_count() + 1)


def test_a_batch_must_split_over_the_data_axis():
    mesh = make_mesh(data=-1, model=1)
    assert len(process_rows(mesh, 8 * mesh.shape["data"], "train.batch_size"))
    with pytest.raises(UserError, match=r"config\.train\.batch_size=0"):
        process_rows(mesh, 0, "train.batch_size")


# For each layout of the devices: this process's rows of a batch of 8, the results of computations
# on batches placed from these rows, and whether the batches can be gathered again.
ON_LAYOUTS = """
import json, numpy as np
from jax.sharding import AxisType, Mesh
from maven_jax.runtime.sharding import batch_sharding, gather_rows, place_batch
from maven_jax.runtime.sharding import process_rows, rows_here

devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
results = {}
for name, (order, shape) in json.loads(sys.argv[4]).items():
    grid = np.array([devices[i] for i in order]).reshape(shape)
    mesh = Mesh(grid, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rows = process_rows(mesh, 8, "key")
    whole = np.random.default_rng(0).standard_normal((3, 8, 5)).astype(np.float32)
    batches = [place_batch({"x": batch[rows]}, mesh)["x"] for batch in whole]
    weighted = jax.jit(lambda x: (x * np.arange(8.0)[:, None]).sum())
    double = jax.jit(lambda x: 2 * x, out_shardings=batch_sharding(mesh))
    outputs = np.stack([rows_here(double(x)) for x in batches])
    same = np.array_equal(outputs, 2 * whole[:, rows])
    gathered = np.array_equal(gather_rows(outputs, mesh), 2 * whole)
    sums = [float(weighted(x)) for x in batches]
    results[name] = {"rows": rows.tolist(), "sums": sums, "same": same, "gathered": gathered}
print(json.dumps(results))
"""


@pytest.mark.multiprocess
def test_a_global_batch_is_the_same_however_devices_lie_on_the_mesh():
    layouts = {
        "in order": ((0, 1, 2, 3), (4, 1)),
        "rows alternate between processes": ((0, 2, 1, 3), (4, 1)),
        "the model axis spans processes": ((0, 2, 1, 3), (2, 2)),
        "all along model": ((0, 1, 2, 3), (1, 4)),
    }
    whole = np.random.default_rng(0).standard_normal((3, 8, 5)).astype(np.float32)
    sums = (whole * np.arange(8.0)[:, None]).sum((1, 2))
    first, second = run_processes(ON_LAYOUTS, json.dumps(layouts), processes=2, devices=2)
    rows = {name: (first[name]["rows"], second[name]["rows"]) for name in layouts}
    assert rows == {
        "in order": ([0, 1, 2, 3], [4, 5, 6, 7]),
        "rows alternate between processes": ([0, 1, 4, 5], [2, 3, 6, 7]),
        "the model axis spans processes": (list(range(8)), list(range(8))),
        "all along model": (list(range(8)), list(range(8))),
    }
    for process in (first, second):
        for name, result in process.items():
            np.testing.assert_allclose(result["sums"], sums, rtol=1e-5, err_msg=name)
            assert result["same"], name
            assert result["gathered"], name


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = jax.sharding.AbstractMesh((4, 2), ("data", "model"))
    rules = dict(logical_rules(fsdp=True))
    assert _sharding(mesh, P("embed", "mlp"), (8, 6), rules).spec == P("data", "model")
    assert _sharding(mesh, P("embed", "mlp"), (6, 5), rules).spec == P(None, None)
    with pytest.raises(ValueError, match="no rule for the logical axis 'embde'"):
        _sharding(mesh, P("embde"), (8,), rules)


@pytest.mark.parametrize(
    "name", ["maven", "maven_released:mlp", "maven_released:beit", "features", "baseline:concat"]
)
def test_every_parameter_axis_has_a_rule_and_large_kernels_are_split(name, tmp_path):
    store = write_small_store(
        tmp_path / "s", videos=2, frames=60, modalities={"visual": 32, "audio": 16, "text": 16}
    )
    config = recipes.load(name)
    config.data.store = str(tmp_path / "s")
    config.data.modalities = tuple(store.modalities)
    experiment = Experiment(config, store)
    model, batch = experiment.model, experiment.example()
    abstract = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0),
            {m: jnp.asarray(x, jnp.float32) for m, x in batch.features.items()},
            jax.tree.map(jnp.asarray, batch.modality_masks),
            jnp.asarray(batch.frame_mask),
            train=False,
        )["params"]
    )
    mesh = jax.sharding.AbstractMesh((1, 2), ("data", "model"))
    rules = dict(logical_rules(fsdp=False))
    specs = jax.tree.leaves(nn.get_partition_spec(abstract), is_leaf=lambda x: isinstance(x, P))
    leaves = jax.tree.leaves(nn.meta.unbox(abstract))
    split = sum(
        leaf.size
        for spec, leaf in zip(specs, leaves, strict=True)
        if "model" in _sharding(mesh, spec, leaf.shape, rules).spec
    )
    total = sum(leaf.size for leaf in leaves)
    if "beit" in name or name == "maven":
        assert split > 0.9 * total


def test_unknown_sections_are_named(tmp_path):
    config = small_recipe(tmp_path)
    config.optimiser = config.optimizer
    with pytest.raises(UserError, match="did you mean 'optimizer'"):
        check_sections(config)
