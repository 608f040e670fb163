"""The device mesh, the rules that lay logical axes on it, and placing batches.

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
    # Linen modules know nothing of explicit axes: sharding is propagated by the compiler (Auto).
    return jax.make_mesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def logical_rules(fsdp: bool) -> Rules:
    """Logical axis -> mesh axis. With `fsdp`, parameters are split over `data` along "embed"."""
    return (
        ("batch", "data"),
        ("frames", None),
        ("context", None),
        ("channels", None),
        ("activation_embed", None),
        ("embed", "data" if fsdp else None),
        ("heads", "model"),
        ("head_dim", None),
        ("kv", None),
        ("mlp", "model"),
        ("vocab", None),
        ("layers", None),
        ("position", None),
        ("norm", None),
    )


def _sharding(
    mesh: Mesh | AbstractMesh, spec: P, shape: tuple[int, ...], rules: dict[str, str | None]
):
    """One leaf's sharding; an axis that a mesh axis does not divide stays whole."""
    axes: list[str | None] = []
    for size, name in zip(shape, tuple(spec) + (None,) * (len(shape) - len(spec))):
        if name is not None and name not in rules:
            raise ValueError(f"no rule for the logical axis {name!r}; add it to logical_rules")
        axis = None if name is None else rules[name]
        if axis is not None and (size % mesh.shape[axis] or axis in axes):
            axis = None
        axes.append(axis)
    return NamedSharding(mesh, P(*axes))


def tree_shardings(mesh: Mesh, abstract: Any, rules: Rules) -> Any:
    """Shardings for a tree of (possibly Linen-boxed) abstract arrays, unboxed in form.

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
    """Leading axis over `data`."""
    return NamedSharding(mesh, P("data"))


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts this process's rows of a batch on its devices; the result is the global batch."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def gather(array: jax.Array) -> np.ndarray:
    """A batch-sharded array as NumPy, whole, on every process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def rows_per_process(batch_size: int, mesh: Mesh, key: str) -> int:
    """Rows of a global batch that each process reads.

    Raises:
        UserError: the batch does not split evenly over the data axis.
    """
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise UserError(
            f"config.{key}={batch_size} is not a multiple of the mesh's {mesh.shape['data']}"
            " device(s) along data"
        )
    return batch_size // jax.process_count()
