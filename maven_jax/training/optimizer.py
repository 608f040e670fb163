"""The optimiser chain and the control of its learning rate by the validation score."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from maven_jax.errors import UserError


def schedule(learning_rate: float, kind: str, warmup_steps: int, total_steps: int):
    """Learning rate by step: a linear warm-up, then `constant` or `cosine` down to zero."""
    if kind == "constant":
        body = optax.constant_schedule(learning_rate)
    elif kind == "cosine":
        body = optax.cosine_decay_schedule(learning_rate, max(total_steps - warmup_steps, 1))
    else:
        raise UserError(f"config.optimizer.schedule={kind!r}: expected constant or cosine")
    if warmup_steps == 0:
        return body
    ramp = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([ramp, body], [warmup_steps])


# How the names of weight matrices end: linear layers and convolutions, embeddings, LSTMs, joint
# correlation.
_MATRICES = ("kernel", "embedding", "recurrent", "_joint", "_input", "_correlation", "_output")


def kernels_only(params: Any) -> Any:
    """True for weight matrices, which decay; False for biases, norms and single vectors."""

    def decays(path: tuple, _) -> bool:
        # A parameter that carries axis names lies in a box below its own name.
        names = [str(p.key) for p in path if isinstance(p, jax.tree_util.DictKey)]
        return names[-1].endswith(_MATRICES)

    return jax.tree_util.tree_map_with_path(decays, params)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, by one factor for all gradients.

    optax divides each gradient by the norm, and XLA stores the quotients: two more passes over all
    parameters, which cost a processor as much as updating the moments.
    """

    def update(updates: Any, state: Any, params: Any = None):
        norm = optax.tree.norm(updates)
        factor = jnp.where(norm < max_norm, 1.0, max_norm / norm)
        return jax.tree.map(lambda u: u * factor.astype(u.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    schedule_kind: str,
    warmup_epochs: float,
    weight_decay: float,
    decay_all: bool,
    b1: float,
    b2: float,
    eps: float,
    clip_norm: float | None,
    steps_per_epoch: int,
    total_steps: int,
) -> tuple[optax.GradientTransformation, Any]:
    """The gradient transformation of a recipe's `optimizer` section, and its schedule.

    Args:
        name: `adamw` (decoupled decay) or `adam` (decay added to the gradient, as
            `torch.optim.Adam(weight_decay=…)` does).
        learning_rate: peak learning rate.
        schedule_kind: `constant` or `cosine`.
        warmup_epochs: length of the linear warm-up.
        weight_decay: strength of the decay.
        decay_all: decay every parameter (PyTorch's habit) or kernels and embeddings only.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        clip_norm: largest global gradient norm; None for no clipping.
        steps_per_epoch: steps in an epoch.
        total_steps: steps in the run.

    Raises:
        UserError: an unknown name or schedule.
    """
    rate = schedule(
        learning_rate, schedule_kind, round(warmup_epochs * steps_per_epoch), total_steps
    )
    mask = None if decay_all else kernels_only
    decay = optax.add_decayed_weights(weight_decay, mask)
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    if name == "adamw":
        parts = [adam, decay]
    elif name == "adam":
        parts = [decay, adam]
    else:
        raise UserError(f"config.optimizer.name={name!r}: expected adam or adamw")
    clip = [] if clip_norm is None else [clip_by_global_norm(clip_norm)]
    return optax.chain(*clip, *parts, optax.scale_by_learning_rate(rate)), rate


@dataclasses.dataclass
class Plateau:
    """Shrinks the learning rate, then stops the run, when the validation score does not improve.

    optax's own plateau rule counts updates; a validation score arrives once per evaluation,
    so the rule is applied here, on the host, and saved with every checkpoint.

    Attributes:
        factor: what the rate is multiplied by; 1 switches the shrinking off.
        patience: evaluations without a new best score before it shrinks.
        min_scale: the smallest multiple of the configured rate.
        stop_patience: evaluations without a new best score before the run stops; None for never.
        best: highest score so far.
        bad: evaluations since the best, or since the rate shrank.
        bad_total: evaluations since the best.
        scale: present multiple of the configured learning rate.
    """

    factor: float
    patience: int
    min_scale: float
    stop_patience: int | None
    best: float = -math.inf
    bad: int = 0
    bad_total: int = 0
    scale: float = 1.0

    def update(self, score: float) -> bool:
        """Takes the score of one evaluation; True if the run should stop."""
        if score > self.best:
            self.best, self.bad, self.bad_total = score, 0, 0
            return False
        self.bad += 1
        self.bad_total += 1
        if self.bad > self.patience and not self._smallest:
            self.scale, self.bad = max(self.scale * self.factor, self.min_scale), 0
        return self.stop_patience is not None and self.bad_total >= self.stop_patience

    @property
    def _smallest(self) -> bool:
        """The rate does not shrink any more."""
        # Rounding: a product of factors may end just above the smallest scale.
        return self.factor >= 1 or self.scale <= self.min_scale * (1 + 1e-9)

    @property
    def spent(self) -> bool:
        """The patience is used up at the smallest rate."""
        return self._smallest and self.bad > self.patience

    def restart(self) -> None:
        """Begins anew at the configured rate; the best score stays the one to beat."""
        self.bad, self.bad_total, self.scale = 0, 0, 1.0

    def to_json(self) -> dict[str, Any]:
        """The part that changes, for a checkpoint."""
        best = None if math.isinf(self.best) else self.best
        return {"best": best, "bad": self.bad, "bad_total": self.bad_total, "scale": self.scale}

    def from_json(self, saved: dict[str, Any]) -> None:
        best = -math.inf if saved["best"] is None else saved["best"]
        self.best, self.bad, self.bad_total = best, saved["bad"], saved["bad_total"]
        self.scale = saved["scale"]
