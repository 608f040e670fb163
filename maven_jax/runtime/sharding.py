"""The device mesh, the rules that map logical axes onto it, and the placing of batches.

The mesh has two axes: `data` splits the windows of a batch (and, with FSDP, the parameters too),
`model` splits heads and MLP widths inside a layer. Modules name the axes of their parameters
logically ("embed", "heads", …); only this file knows which mesh axis each lands on.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maven_jax.errors import UserError

Rules = tuple[tuple[str, str | None], ...]


def make_mesh(data: int, model: int) -> Mesh:
    """A mesh (data, model) over all devices of all processes.

    Args:
        data: devices along `data`; -1 for all that `model` leaves.
        model: devices along `model`.

    Raises:
        UserError: the product is not the number of devices.
    """
    count = jax.device_count()
    if data == -1 and model > 0 and count % model == 0:
        data = count // model
    if data < 1 or model < 1 or data * model != count:
        raise UserError(
            f"config.mesh: data={data} x model={model} does not make up the {count} device(s) here"
        )
    # Auto: the compiler propagates shardings. Linen modules do not support explicit axes.
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def logical_rules(fsdp: bool) -> Rules:
    """Logical axis -> mesh axis. With `fsdp`, parameters are split over `data` along "embed"."""
    return (
        ("batch", "data"),
        ("frames", None),
        ("channels", None),
        ("activation_embed", None),
        ("embed", "data" if fsdp else None),
        ("heads", "model"),
        ("head_dim", None),
        ("mlp", "model"),
        ("vocab", None),
        ("layers", None),
        ("position", None),
        ("norm", None),
    )


def _sharding(
    mesh: Mesh | AbstractMesh, spec: P, shape: tuple[int, ...], rules: dict[str, str | None]
):
    """One leaf's sharding; a dimension that its mesh axis does not divide stays whole."""
    axes: list[str | None] = []
    for size, name in zip(shape, tuple(spec) + (None,) * (len(shape) - len(spec))):
        if name is not None and name not in rules:
            raise ValueError(f"no rule for the logical axis {name!r}; add it to logical_rules")
        axis = None if name is None else rules[name]
        if axis is not None and (size % mesh.shape[axis] or axis in axes):
            axis = None
        axes.append(axis)
    return NamedSharding(mesh, P(*axes))


def tree_shardings(mesh: Mesh | AbstractMesh, abstract: Any, rules: Rules) -> Any:
    """Shardings for a tree of abstract arrays, which Linen may have boxed; the result is unboxed.

    Args:
        mesh: the device mesh.
        abstract: what `jax.eval_shape` returns for an initialiser.
        rules: see `logical_rules`.

    Raises:
        ValueError: a parameter names a logical axis that has no rule.
    """
    specs = nn.get_partition_spec(abstract)
    shapes = nn.meta.unbox(abstract)
    table = dict(rules)
    return jax.tree.map(
        lambda spec, leaf: _sharding(mesh, spec, leaf.shape, table),
        specs,
        shapes,
        is_leaf=lambda x: isinstance(x, P),
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its leading axis over `data`."""
    return NamedSharding(mesh, P("data"))


def _data_shards(mesh: Mesh, process: int) -> list[int]:
    """Positions along `data` at which a process has devices, in order.

    They need not be adjacent: on a TPU slice the mesh follows the wiring, not the hosts. Where the
    model axis spans processes, several of them have the same positions.
    """
    along_data = np.moveaxis(mesh.devices, mesh.axis_names.index("data"), 0)
    owners = [{d.process_index for d in devices.flat} for devices in along_data]
    return [i for i, processes in enumerate(owners) if process in processes]


def process_rows(mesh: Mesh, batch_size: int, key: str) -> np.ndarray:
    """The rows of a global batch that this process's devices take, in order.

    Args:
        mesh: the device mesh.
        batch_size: rows of the global batch.
        key: the recipe's key of the batch size, for the message.

    Raises:
        UserError: the batch does not split evenly over the data axis.
    """
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise UserError(
            f"config.{key}={batch_size} is not a multiple of the mesh's {mesh.shape['data']}"
            " device(s) along data"
        )
    return _rows_of(_data_shards(mesh, jax.process_index()), batch_size // mesh.shape["data"])


def _rows_of(shards: list[int], shard_rows: int) -> np.ndarray:
    return (np.array(shards)[:, None] * shard_rows + np.arange(shard_rows)).ravel()


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """The global batch, split over the devices, from each process's `process_rows` of it."""
    sharding, shards = batch_sharding(mesh), _data_shards(mesh, jax.process_index())

    def place(x: np.ndarray) -> jax.Array:
        shard_rows = len(x) // len(shards)

        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            first = shards.index((index[0].start or 0) // shard_rows) * shard_rows
            return x[first : first + shard_rows]

        shape = (shard_rows * mesh.shape["data"], *x.shape[1:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return jax.tree.map(place, batch)


def rows_here(array: jax.Array) -> np.ndarray:
    """This process's rows of a batch-sharded array, in the order of `process_rows`."""
    shards = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
    return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])


def gather_rows(rows: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Whole batches on every process, from each process's rows of them.

    All processes have to call it, with as many batches.

    Args:
        rows: (k, r, …) this process's rows of k global batches, in the order of `process_rows`.
        mesh: the device mesh.

    Returns:
        (k, batch_size, …)
    """
    if jax.process_count() == 1:
        return rows
    from jax.experimental import multihost_utils

    shards = [_data_shards(mesh, p) for p in range(jax.process_count())]
    shard_rows = rows.shape[1] // len(shards[jax.process_index()])
    # All processes have to give the same shape, but may have different numbers of rows.
    padded = np.zeros((len(rows), max(map(len, shards)) * shard_rows, *rows.shape[2:]), rows.dtype)
    padded[:, : rows.shape[1]] = rows
    parts = np.asarray(multihost_utils.process_allgather(padded))
    whole = np.zeros((len(rows), mesh.shape["data"] * shard_rows, *rows.shape[2:]), rows.dtype)
    for part, own in zip(parts, shards):
        whole[:, _rows_of(own, shard_rows)] = part[:, : len(own) * shard_rows]
    return whole
