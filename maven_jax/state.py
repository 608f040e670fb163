"""The weights of a model, the state of its training, and creating both where they will live."""

from __future__ import annotations

from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from maven_jax.data.transforms import FeatureStatistics
from maven_jax.sharding import Rules, tree_shardings
from maven_jax.types import Batch


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
    """All that a step changes.

    Attributes:
        step: () steps taken.
        weights: the model's `Weights`.
        opt_state: state of the optimiser.
        lr_scale: () multiple of the scheduled learning rate, set by the plateau rule.
    """

    step: Int[Array, ""]
    weights: Weights
    opt_state: Any
    lr_scale: Float[Array, ""]


def init_weights(model: nn.Module, batch: Batch, statistics: FeatureStatistics, key: Array):
    """Fresh weights, boxed with their logical axes (`nn.meta`); to be traced, not called."""
    row = jax.tree.map(lambda x: jnp.ones((1, *x.shape[1:]), x.dtype), batch)
    features = {m: x.astype(jnp.float32) for m, x in row.features.items()}
    keys = {"params": key, "dropout": key}
    variables = model.init(keys, features, row.modality_masks, row.frame_mask, train=False)
    params = variables.get("params", {})
    rest = {k: v for k, v in variables.items() if k != "params"}
    return Weights(params=params, model_state=rest, statistics=statistics)


def _create(create: Any, mesh: Mesh, rules: Rules, *args: Any) -> tuple[Any, Any]:
    """`create(*args)`, each array made on the devices that hold it, and the shardings."""
    shardings = tree_shardings(mesh, jax.eval_shape(create, *args), rules)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        build = jax.jit(lambda *a: nn.meta.unbox(create(*a)), out_shardings=shardings)
        return build(*args), shardings


def create_weights(
    model: nn.Module,
    batch: Batch,
    statistics: FeatureStatistics,
    mesh: Mesh,
    rules: Rules,
    seed: int,
) -> tuple[Weights, Any]:
    """Fresh weights and their shardings; see `create_state`."""

    def create(key: Array, statistics: FeatureStatistics) -> Weights:
        return init_weights(model, batch, statistics, key)

    return _create(create, mesh, rules, jax.random.key(seed), statistics)


def _state_maker(model: nn.Module, tx: optax.GradientTransformation, batch: Batch):
    def create(key: Array, statistics: FeatureStatistics) -> TrainState:
        weights = init_weights(model, batch, statistics, key)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            weights=weights,
            opt_state=tx.init(weights.params),
            lr_scale=jnp.ones((), jnp.float32),
        )

    return create


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    batch: Batch,
    statistics: FeatureStatistics,
    mesh: Mesh,
    rules: Rules,
    seed: int,
) -> tuple[TrainState, Any]:
    """A fresh training state and its shardings.

    Args:
        model: the model.
        tx: the optimiser.
        batch: a batch, or its abstract shapes.
        statistics: of the training features.
        mesh: the device mesh.
        rules: logical axis -> mesh axis.
        seed: of the initial weights.
    """
    create = _state_maker(model, tx, batch)
    return _create(create, mesh, rules, jax.random.key(seed), statistics)


def abstract_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    batch: Batch,
    statistics: FeatureStatistics,
    mesh: Mesh,
    rules: Rules,
) -> tuple[TrainState, Any]:
    """The shapes and shardings of what `create_state` makes, without making it."""
    abstract = jax.eval_shape(_state_maker(model, tx, batch), jax.random.key(0), statistics)
    return nn.meta.unbox(abstract), tree_shardings(mesh, abstract, rules)


def count_parameters(params: Any) -> int:
    """Number of trained values."""
    return sum(x.size for x in jax.tree.leaves(params))
