"""The jitted training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from maven_jax.data.transforms import InputTransform
from maven_jax.evaluation.step import apply_model
from maven_jax.runtime.sharding import Rules, batch_sharding
from maven_jax.state import TrainState, Weights
from maven_jax.types import Batch, Prediction

LossFn = Callable[[Prediction, Array, Array], tuple[Array, dict[str, Array]]]
ExtraLossFn = Callable[[Prediction, Batch], tuple[Array, dict[str, Array]]]


def _split(batch: Batch, parts: int) -> Batch:
    """Leading axis (b,) -> (parts, b / parts), each part spread over the devices like the whole."""
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0), batch
    )


def merged(params: Any, trained: Any) -> Any:
    """Nested dicts `params` with the leaves of `trained` in their places."""
    if not isinstance(trained, dict):
        return trained
    return {k: merged(v, trained[k]) if k in trained else v for k, v in params.items()}


def averaged(average: Any, params: Any, step: Array, decay: float | int) -> Any:
    """The exponential moving average of the parameters after a step; None stays None.

    Its decay grows with the steps to `decay`: early weights are forgotten sooner.
    """
    if average is None:
        return None
    rest = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: a + rest.astype(a.dtype) * (p - a), average, params)


def make_train_step(
    model: nn.Module,
    loss_fn: LossFn,
    transform: InputTransform,
    tx: optax.GradientTransformation,
    *,
    mesh: Mesh,
    rules: Rules,
    shardings: Any,
    accumulate_steps: int,
    ema_decay: float | int,
    seed: int,
    select: Callable[[Any], Any] = lambda params: params,
    extra_loss: ExtraLossFn | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """A jitted step: (state, batch) -> (state, metrics); the state given to it is consumed.

    Args:
        model: the model.
        loss_fn: (prediction, targets, mask) -> (loss, its parts).
        transform: applied to the batch on the device.
        tx: the optimiser.
        mesh: the device mesh.
        rules: logical axis -> mesh axis.
        shardings: of the state.
        accumulate_steps: number of parts into which a batch is split; their gradients are averaged.
            Losses over the batch are then over a part, and so are BatchNorm's statistics, whose
            running values take in one part after the other.
        ema_decay: of the state's average of the parameters, if it has one; see `averaged`.
        seed: of dropout, noise and modality dropout; seed and step number determine them.
        select: parameters -> those that train, in the same nested dicts without the others. The
            others have no gradient and stay bit for bit the same; `tx` never sees them.
        extra_loss: of the extra targets, added to the loss; None without any.
    """

    def loss_of(
        trained: Any, params: Any, model_state: Any, statistics: Any, batch: Batch, key: Array
    ):
        params = merged(params, trained)
        transform_key, dropout_key = jax.random.split(key)
        batch = transform(batch, statistics, transform_key, train=True)
        prediction, model_state = apply_model(
            model, params, model_state, batch, train=True, key=dropout_key
        )
        loss, parts = loss_fn(prediction, batch.targets, batch.target_mask)
        if extra_loss is not None:
            extra, extra_parts = extra_loss(prediction, batch)
            loss, parts = loss + extra, {**parts, **extra_parts}
        return loss, (model_state, parts)

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        with nn.logical_axis_rules(rules):
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            params = state.weights.params
            trained = select(params)
            (loss, (model_state, parts)), grads = _accumulated(
                gradient_of, trained, state.weights, batch, key, accumulate_steps
            )
            updates, opt_state = tx.update(grads, state.opt_state, trained)
            updates = jax.tree.map(lambda u: u * state.lr_scale.astype(u.dtype), updates)
            metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **parts}
            params = merged(params, optax.apply_updates(trained, updates))
            average = averaged(state.average, params, state.step, ema_decay)
            state = state.replace(
                step=state.step + 1,
                weights=state.weights.replace(params=params, model_state=model_state),
                opt_state=opt_state,
                average=average,
            )
        return state, metrics

    replicated = NamedSharding(mesh, P())
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def _accumulated(
    gradient_of: Callable[..., Any],
    trained: Any,
    weights: Weights,
    batch: Batch,
    key: Array,
    steps: int,
) -> Any:
    """The means of losses and gradients over so many parts of a batch, one after the other."""
    w = weights
    if steps == 1:
        return gradient_of(trained, w.params, w.model_state, w.statistics, batch, key)

    def one(carry: tuple[Any, Any], part: tuple[Batch, Array]):
        model_state, total = carry
        (loss, (model_state, parts)), grads = gradient_of(
            trained, w.params, model_state, w.statistics, *part
        )
        return (model_state, jax.tree.map(jnp.add, total, grads)), (loss, parts)

    keys = jax.random.split(key, steps)
    start = (w.model_state, jax.tree.map(jnp.zeros_like, trained))
    (model_state, total), losses = jax.lax.scan(one, start, (_split(batch, steps), keys))
    loss, parts = jax.tree.map(lambda x: x.mean(0), losses)
    grads = jax.tree.map(lambda x: x / steps, total)
    return (loss, (model_state, parts)), grads
