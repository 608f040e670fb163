"""One batch through a model: what training, evaluation and prediction share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float

from maven_jax.data.transforms import InputTransform
from maven_jax.runtime.sharding import Rules, batch_sharding
from maven_jax.state import Weights
from maven_jax.store.schema import ExtraTarget
from maven_jax.types import Batch, Prediction

# A head's outputs as they are averaged over windows.
_READABLE: dict[str, Callable[[Array], Array]] = {
    "continuous": lambda x: jnp.clip(x, -1.0, 1.0),
    "classes": jax.nn.softmax,
    "binary": jax.nn.sigmoid,
}


def apply_model(
    model: nn.Module, params: Any, model_state: Any, batch: Batch, *, train: bool, key: Array
) -> tuple[Prediction, Any]:
    """The model's prediction and its other variables afterwards (unchanged unless training)."""
    arguments = (batch.features, batch.modality_masks, batch.frame_mask)
    variables = {"params": params, **model_state}
    if not train:
        return model.apply(variables, *arguments, train=False), model_state  # type: ignore
    prediction, updated = model.apply(
        variables, *arguments, train=True, rngs={"dropout": key}, mutable=list(model_state)
    )
    return prediction, updated  # type: ignore


def predict_function(
    model: nn.Module,
    transform: InputTransform,
    *,
    rules: Rules,
    seed: int,
    extra: Sequence[ExtraTarget] = (),
) -> Callable[[Weights, Batch], Float[Array, "b t _"]]:
    """(weights, batch) -> (b, t, 2) valence, arousal, clipped to [-1, 1]; not jitted.

    Behind them are the outputs for `extra`: numbers within [-1, 1], or probabilities by label.
    """

    def predict(weights: Weights, batch: Batch) -> Float[Array, "b t _"]:
        with nn.logical_axis_rules(rules):
            key = jax.random.key(seed)
            batch = transform(batch, weights.statistics, key, train=False)
            prediction, _ = apply_model(
                model, weights.params, weights.model_state, batch, train=False, key=key
            )
            va = jnp.clip(prediction.va.astype(jnp.float32), -1.0, 1.0)
            if not extra:
                return va
            readable = (_READABLE[t.kind](prediction.extra[t.name]) for t in extra)
            return jnp.concatenate([va, *readable], axis=-1)

    return predict


def make_predict_step(
    model: nn.Module,
    transform: InputTransform,
    *,
    mesh: Mesh,
    rules: Rules,
    shardings: Any,
    seed: int,
    extra: Sequence[ExtraTarget] = (),
) -> Callable[[Weights, Batch], Float[Array, "b t _"]]:
    """A jitted `predict_function`."""
    return jax.jit(
        predict_function(model, transform, rules=rules, seed=seed, extra=extra),
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )
