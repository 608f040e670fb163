"""The weights of a model, the state of its training, and creating both where they will live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from maven_jax.data.transforms import FeatureStatistics
from maven_jax.errors import UserError, listing
from maven_jax.models.registry import errors_of_model
from maven_jax.runtime.sharding import Rules, tree_shardings
from maven_jax.types import Batch

# 40 GB in float32; what a recipe with a wrong width, or a forged one, asks for is more.
MOST_PARAMETERS = 10_000_000_000


@no_type_check
@struct.dataclass
class Weights:
    """All that prediction needs.

    Attributes:
        params: parameters of the model.
        model_state: its other variables (`batch_stats`, …); empty for most models.
        statistics: `FeatureStatistics` of the features that the model was trained on.
    """

    params: Any
    model_state: Any
    statistics: FeatureStatistics


@no_type_check
@struct.dataclass
class TrainState:
    """All that a training step changes.

    Attributes:
        step: () steps taken.
        weights: the model's `Weights`.
        opt_state: state of the optimiser.
        lr_scale: () multiple of the scheduled learning rate, set by the plateau rule.
        average: moving average of the parameters over the steps; None if there is none.
    """

    step: Int[Array, ""]
    weights: Weights
    opt_state: Any
    lr_scale: Float[Array, ""]
    average: Any = None

    @property
    def predicting(self) -> Weights:
        """The weights to predict with: the average, where there is one."""
        return self.weights if self.average is None else self.weights.replace(params=self.average)


def init_weights(model: nn.Module, batch: Batch, statistics: FeatureStatistics, key: Array):
    """Fresh weights, boxed with their logical axes (`nn.meta`); to be traced, not called."""
    row = jax.tree.map(lambda x: jnp.ones((1, *x.shape[1:]), x.dtype), batch)
    features = {m: x.astype(jnp.float32) for m, x in row.features.items()}
    keys = {"params": key, "dropout": key}
    variables = model.init(keys, features, row.modality_masks, row.frame_mask, train=False)
    params = variables.get("params", {})
    rest = {k: v for k, v in variables.items() if k != "params"}
    return Weights(params=params, model_state=rest, statistics=statistics)


def abstract_weights(model: nn.Module, batch: Batch, statistics: FeatureStatistics) -> Weights:
    """The shapes of what `init_weights` makes, boxed with their logical axes.

    Raises:
        UserError: the recipe's values make no model, or one with more than `MOST_PARAMETERS`.
    """
    key = jax.random.key(0)
    with errors_of_model():
        shapes = jax.eval_shape(lambda k, s: init_weights(model, batch, s, k), key, statistics)
    count = count_parameters(shapes.params)
    if count > MOST_PARAMETERS:
        raise UserError(f"config.model: {count:,} parameters; at most {MOST_PARAMETERS:,} are made")
    return shapes


def _create(create: Any, shardings: Any, mesh: Mesh, rules: Rules, *args: Any) -> Any:
    """`create(*args)`, each array made on the devices that hold it."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        return jax.jit(lambda *a: nn.meta.unbox(create(*a)), out_shardings=shardings)(*args)


def create_weights(
    model: nn.Module,
    batch: Batch,
    statistics: FeatureStatistics,
    mesh: Mesh,
    rules: Rules,
    seed: int,
) -> tuple[Weights, Any]:
    """Fresh weights and their shardings; the arguments are those of `create_state`."""

    def create(key: Array, statistics: FeatureStatistics) -> Weights:
        return init_weights(model, batch, statistics, key)

    shardings = tree_shardings(mesh, abstract_weights(model, batch, statistics), rules)
    return _create(create, shardings, mesh, rules, jax.random.key(seed), statistics), shardings


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    batch: Batch,
    statistics: FeatureStatistics,
    shardings: TrainState,
    mesh: Mesh,
    rules: Rules,
    seed: int,
    averages: bool,
) -> TrainState:
    """A fresh training state.

    Args:
        model: the model.
        tx: the optimiser.
        batch: a batch, or its abstract shapes.
        statistics: of the training features.
        shardings: of the state, see `abstract_state`.
        mesh: the device mesh.
        rules: logical axis -> mesh axis.
        seed: of the initial weights.
        averages: keep an average of the parameters.
    """

    def create(key: Array, statistics: FeatureStatistics) -> TrainState:
        weights = init_weights(model, batch, statistics, key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            weights=weights,
            opt_state=tx.init(weights.params),
            lr_scale=jnp.ones((), jnp.float32),
            average=jax.tree.map(jnp.copy, weights.params) if averages else None,
        )

    return _create(create, shardings, mesh, rules, jax.random.key(seed), statistics)


def abstract_state(
    weights: Weights,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    rules: Rules,
    averages: bool = False,
) -> tuple[TrainState, TrainState]:
    """The shapes (with their shardings) and the shardings of what `create_state` makes.

    Args:
        weights: see `abstract_weights`.
        tx: the optimiser.
        mesh: the device mesh.
        rules: logical axis -> mesh axis.
        averages: as in `create_state`.
    """
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    lr_scale: Any = jax.ShapeDtypeStruct((), jnp.float32)
    opt_state = jax.eval_shape(tx.init, weights.params)
    average = weights.params if averages else None
    boxed = TrainState(step, weights, opt_state, lr_scale, average)
    shardings = tree_shardings(mesh, boxed, rules)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        nn.meta.unbox(boxed),
        shardings,
    )
    return shapes, shardings


def count_parameters(params: Any) -> int:
    """Number of trained values."""
    return sum(x.size for x in jax.tree.leaves(params))


Flat = dict[str, Any]


def put_weights(weights: Weights, variables: Mapping[str, Any], where: str, source: str) -> Weights:
    """`weights` with those of one module replaced.

    Args:
        weights: of the model.
        variables: `params` and `model_state` of the module.
        where: its path within the model; `/` for the model itself.
        source: where they come from, for messages.

    Raises:
        UserError: names or shapes differ from the module's.
    """
    target: dict[str, Flat] = {
        name: flatten_dict(tree, sep="/")
        for name, tree in {"params": weights.params, **weights.model_state}.items()
    }
    collections = {"params": variables["params"], **variables["model_state"]}
    prefix = where.strip("/") + "/" if where.strip("/") else ""
    if not any(path.startswith(prefix) for path in target["params"]):
        modules = sorted({path.split("/")[0] for path in target["params"]})
        raise UserError(f"{source}: the model has no {where!r}; it has {', '.join(modules)}")
    unknown = [name for name, tree in collections.items() if tree and name not in target]
    if unknown:
        raise UserError(f"{source} has {', '.join(unknown)}, which the model has not")
    for name, values in target.items():
        flat = flatten_dict(collections.get(name) or {}, sep="/")
        _put(values, {prefix + path: x for path, x in flat.items()}, prefix, source)
    trees = {name: unflatten_dict(values, sep="/") for name, values in target.items()}
    return weights.replace(params=trees.pop("params"), model_state=trees)


def _put(target: Flat, source: Flat, prefix: str, place: str) -> None:
    """Replaces all that lies under `prefix`; both sides have to have the same names and shapes."""
    paths = {path for path in target if path.startswith(prefix)}
    faults = [f"lacks {path}" for path in sorted(paths - source.keys())]
    faults += [f"has {path}, the model has not" for path in sorted(source.keys() - paths)]
    faults += [
        f"has {path} of shape {source[path].shape}, the model's is {target[path].shape}"
        for path in sorted(paths & source.keys())
        if source[path].shape != target[path].shape
    ]
    if faults:
        raise UserError(f"{place} {listing(faults, 3, '; ')}")
    for path in paths:
        target[path] = _like(source[path], target[path])


def _like(value: Any, old: jax.Array) -> jax.Array:
    """`value` with the type and the layout of `old`."""
    host = np.asarray(value, old.dtype)
    return jax.make_array_from_callback(old.shape, old.sharding, lambda index: host[index])
