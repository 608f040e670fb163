from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.training.optimizer import Plateau, kernels_only, make_optimizer, schedule


def optimizer(**changes):
    values = dict(
        name="adamw",
        learning_rate=0.1,
        schedule_kind="constant",
        warmup_epochs=0.0,
        weight_decay=0.0,
        decay_all=True,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        clip_norm=None,
        steps_per_epoch=10,
        total_steps=100,
    )
    return make_optimizer(**(values | changes))[0]


def trajectory(tx, grads, start):
    params, state = start, tx.init(start)
    for grad in grads:
        updates, state = tx.update(grad, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_steps_equal_torchs(name):
    import torch

    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=5), rng.normal(size=(8, 5))
    grads[::2] /= 10  # too small to be clipped
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    reference = kind([weight], lr=0.1, weight_decay=0.05)
    for grad in grads:
        weight.grad = torch.tensor(grad, dtype=torch.float32)
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        reference.step()
    ours = trajectory(
        optimizer(name=name, weight_decay=0.05, clip_norm=1.0),
        [jnp.asarray(g, jnp.float32) for g in grads],
        jnp.asarray(start, jnp.float32),
    )
    # torch clips to 1 / (norm + 1e-6), and steps are of 0.1.
    np.testing.assert_allclose(ours, weight.detach().numpy(), atol=1e-5)


def test_decay_spares_biases_norms_and_single_vectors():
    params = {
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2)},
        "words": {"embedding": jnp.ones((3, 2))},
        "missing": jnp.ones(2),
        "lstm": {"input": {"kernel": jnp.ones((2, 4))}, "recurrent": jnp.ones((1, 4))},
        "step": {"visual_joint": nn.LogicallyPartitioned(jnp.ones((3, 3)), (None, None))},
    }
    assert kernels_only(params) == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False},
        "words": {"embedding": True},
        "missing": False,
        "lstm": {"input": {"kernel": True}, "recurrent": True},
        "step": {"visual_joint": nn.LogicallyPartitioned(True, (None, None))},
    }


def test_warm_up_rises_then_cosine_falls_to_zero():
    rate = schedule(1.0, "cosine", 10, 110)
    assert float(rate(0)) == 0
    assert float(rate(5)) == pytest.approx(0.5)
    assert float(rate(10)) == pytest.approx(1)
    assert float(rate(60)) == pytest.approx(0.5)
    assert float(rate(110)) == pytest.approx(0, abs=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="adam or adamw"):
        optimizer(name="sgd")
    with pytest.raises(UserError, match="constant or cosine"):
        optimizer(schedule_kind="linear")


def test_plateau_shrinks_then_stops():
    plateau = Plateau(factor=0.1, patience=1, min_scale=0.05, stop_patience=5)
    seen = [(plateau.update(score), plateau.scale) for score in (0.3, 0.2, 0.3, 0.1, 0.2, 0.0)]
    assert seen[0] == (False, 1.0)
    assert seen[2] == (False, 0.1)  # two evaluations without a better score: more than patience
    assert seen[4] == (False, 0.05)  # no smaller than min_scale
    assert seen[5] == (True, 0.05)


def test_plateau_continues_from_its_saved_state():
    whole = Plateau(factor=0.5, patience=0, min_scale=0.01, stop_patience=None)
    first = Plateau(factor=0.5, patience=0, min_scale=0.01, stop_patience=None)
    scores = [0.1, 0.05, 0.2, 0.1, 0.1]
    for score in scores:
        whole.update(score)
    for score in scores[:2]:
        first.update(score)
    second = Plateau(factor=0.5, patience=0, min_scale=0.01, stop_patience=None)
    second.from_json(first.to_json())
    for score in scores[2:]:
        second.update(score)
    assert second == whole
