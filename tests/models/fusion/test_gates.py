"""Gates over the steps of a recursion, against the formulas in NumPy and torch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maven_jax.models.fusion.gates import HierarchicalGate, RecursionBlstm, SoftmaxGate
from tests.support.rounding import assert_close

WIDTHS = {"visual": 6, "audio": 4}
GATES = [SoftmaxGate(0.1), HierarchicalGate(0.1), RecursionBlstm(3)]
MASK = jnp.arange(5) < jnp.array([[5], [3]])


def steps_and_params(gate, num_steps=3):
    rng = np.random.default_rng(0)
    steps = {
        m: jnp.asarray(rng.standard_normal((num_steps + 1, 2, 5, d)), jnp.float32)
        for m, d in WIDTHS.items()
    }
    variables = gate.init(jax.random.key(0), steps, MASK, deterministic=True)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.standard_normal(leaf.shape), jnp.float32), variables
    )
    return steps, params


def unboxed(params):
    return jax.tree.map(np.asarray, nn.meta.unbox(params)["params"])


def softmax(logits):
    weights = np.exp(logits - logits.max(0))
    return weights / weights.sum(0)


def linear(x, layer):
    return np.moveaxis(x @ layer["kernel"] + layer["bias"], -1, 0)


def softmax_gate(params, m, x):
    weights = softmax(linear(x[-1], params[f"gate_{m}"]) / 0.1)
    return np.maximum((weights[..., None] * x).sum(0), 0)


def hierarchical_gate(params, m, x):
    def gate(name, asked, choices):
        weights = softmax(linear(asked, params[name]) / 0.1)
        return np.maximum((weights[..., None] * choices).sum(0), 0)

    stages = [gate(f"stage_{i}_{m}", x[i], x[: i + 1]) for i in range(1, len(x))]
    return gate(f"gate_{m}", x[-1], np.stack(stages))


def recursion_blstm(params, m, x):
    """A torch LSTM over the steps of each frame."""
    count, b, t, width = x.shape
    lstm = torch.nn.LSTM(width, 3, bidirectional=True, batch_first=True)
    state = {}
    for suffix, direction in (("", "forward"), ("_reverse", "backward")):
        layer = params[f"blstm_{m}"][f"layer_0_{direction}"]
        state[f"weight_ih_l0{suffix}"] = layer["input"]["kernel"].T
        state[f"weight_hh_l0{suffix}"] = layer["recurrent"].T
        state[f"bias_ih_l0{suffix}"] = layer["input"]["bias"]
        state[f"bias_hh_l0{suffix}"] = 0 * layer["input"]["bias"]
    lstm.load_state_dict({name: torch.tensor(value.copy()) for name, value in state.items()})
    frames = torch.tensor(np.moveaxis(x, 0, 2).reshape(b * t, count, width))
    with torch.no_grad():
        states = lstm(frames)[0].numpy().reshape(b, t, count, -1)
    weights = softmax(np.moveaxis(linear(states, params[f"gate_{m}"])[0], -1, 0))
    return (weights[..., None] * x).sum(0)


@pytest.mark.parametrize(
    ("gate", "formula"), list(zip(GATES, (softmax_gate, hierarchical_gate, recursion_blstm)))
)
def test_formulas(gate, formula):
    steps, params = steps_and_params(gate)
    gated = gate.apply(params, steps, MASK, deterministic=True)
    for m, value in steps.items():
        expected = np.where(MASK[..., None], formula(unboxed(params), m, np.asarray(value)), 0)
        assert_close(gated[m], expected)


@pytest.mark.parametrize("gate", GATES)
def test_masked_frames_reach_neither_results_nor_gradients(gate):
    steps, params = steps_and_params(gate)

    @jax.jit
    def run(params, steps):
        def forward(params, steps):
            return gate.apply(params, steps, MASK, deterministic=True)

        outputs, backward = jax.vjp(forward, params, steps)
        return outputs, backward(jax.tree.map(jnp.cos, outputs))

    expected = run(params, steps)
    garbage = {m: jnp.where(MASK[..., None], v, jnp.nan) for m, v in steps.items()}
    with_garbage = run(params, garbage)
    for a, b in zip(jax.tree.leaves(with_garbage), jax.tree.leaves(expected), strict=True):
        assert np.isfinite(a).all()
        assert_close(a, b)
    for value in with_garbage[1][1].values():
        assert not np.any(np.where(MASK[..., None], 0, value))


@pytest.mark.parametrize("gate", GATES)
def test_without_a_recursion_there_is_nothing_to_choose(gate):
    steps, params = steps_and_params(gate, num_steps=0)
    gated = gate.apply(params, steps, MASK, deterministic=True)
    for m, value in steps.items():
        expected = jnp.where(MASK[..., None], value[0], 0)
        if not isinstance(gate, RecursionBlstm):
            expected = jax.nn.relu(expected)
        assert_close(gated[m], expected)
