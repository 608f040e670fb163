"""MaskedBatchNorm against torch's BatchNorm1d, on any number of devices."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from maven_jax.layers.batch_norm import MaskedBatchNorm
from tests.support.root import ROOT
from tests.support.rounding import assert_close

C = 5
# Run as a script, on as many devices as XLA_FLAGS make: output and statistics of one batch.
ON_DEVICES = """
import json
import jax, jax.numpy as jnp, numpy as np
from maven_jax.layers.batch_norm import MaskedBatchNorm
from maven_jax.runtime.sharding import batch_sharding, make_mesh, place_batch
from tests.layers.test_batch_norm import fresh, uneven_batch

def loss(x, mask):
    y, updated = MaskedBatchNorm().apply(fresh(), x, mask, train=True, mutable=["batch_stats"])
    return jnp.sum(jnp.where(mask[..., None], jnp.sin(y), 0)), (y, updated["batch_stats"])

mesh = make_mesh(data=-1, model=1)
step = jax.jit(jax.value_and_grad(loss, has_aux=True), in_shardings=batch_sharding(mesh))
(_, (y, stats)), gradient = step(*place_batch(uneven_batch(), mesh))
values = [np.asarray(v).ravel().tolist() for v in (y, stats["mean"], stats["var"], gradient)]
print(json.dumps({"devices": len(y.sharding.device_set), "values": values}))
"""


def uneven_batch():
    """8 windows of 6 frames around different means, 6 frames valid in one, none in another."""
    random = np.random.default_rng(0)
    x = random.standard_normal((8, 6, C)) * 2 + np.arange(8)[:, None, None]
    lengths = np.array([6, 1, 4, 0, 2, 5, 3, 1])
    return jnp.asarray(x, jnp.float32), jnp.asarray(np.arange(6) < lengths[:, None])


@functools.partial(jax.jit, static_argnames="train")
def apply(variables, x, mask, train=True):
    return MaskedBatchNorm().apply(variables, x, mask, train=train, mutable=["batch_stats"])


def fresh(scale=1.0, bias=0.0):
    return {
        "params": {"scale": jnp.full(C, scale), "bias": jnp.full(C, bias)},
        "batch_stats": {"mean": jnp.zeros(C), "var": jnp.ones(C)},
    }


def test_outputs_and_running_statistics_are_torchs_over_the_valid_frames():
    norm = torch.nn.BatchNorm1d(C)
    with torch.no_grad():
        norm.weight.fill_(1.5)
        norm.bias.fill_(-0.2)
    variables = fresh(1.5, -0.2)
    x, mask = uneven_batch()
    keep = np.asarray(mask)
    for step in range(3):
        batch = np.asarray(x) * (step + 1) - step
        expected = norm(torch.tensor(batch[keep])).detach().numpy()
        y, updated = apply(variables, np.where(keep[..., None], batch, np.nan), mask)
        variables |= updated
        assert_close(np.asarray(y)[keep], expected)
        assert np.isfinite(y).all()
        assert_close(updated["batch_stats"]["mean"], norm.running_mean)
        assert_close(updated["batch_stats"]["var"], norm.running_var)
    norm.eval()
    y, unchanged = apply(variables, x, mask, train=False)
    assert_close(np.asarray(y)[keep], norm(torch.tensor(np.asarray(x)[keep])).detach().numpy())
    jax.tree.map(np.testing.assert_array_equal, unchanged["batch_stats"], variables["batch_stats"])


def test_gradients_are_torchs_and_masked_frames_get_none():
    norm = torch.nn.BatchNorm1d(C)
    x, mask = uneven_batch()
    keep = np.asarray(mask)
    inputs = torch.tensor(np.asarray(x)[keep], requires_grad=True)
    torch.sin(norm(inputs)).sum().backward()

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(params, x):
        y, _ = apply(fresh() | {"params": params}, x, mask)
        return jnp.sum(jnp.where(mask[..., None], jnp.sin(y), 0))

    by_params, by_x = gradient(fresh()["params"], jnp.where(mask[..., None], x, jnp.nan))
    assert_close(np.asarray(by_x)[keep], inputs.grad)
    assert not np.any(np.asarray(by_x)[~keep])
    assert_close(by_params["scale"], norm.weight.grad)
    assert_close(by_params["bias"], norm.bias.grad)


@pytest.mark.parametrize("valid", [0, 1])
def test_too_few_valid_frames_leave_the_running_statistics_alone(valid):
    x, mask = uneven_batch()
    mask = (mask & False).at[0, :valid].set(True)
    variables = fresh()
    variables["batch_stats"] = {"mean": jnp.arange(5.0), "var": jnp.arange(5.0) + 2}
    y, updated = apply(variables, jnp.where(mask[..., None], x, jnp.nan), mask)
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


def test_creating_it_counts_no_batch():
    x, mask = uneven_batch()
    shapes = MaskedBatchNorm().init(jax.random.key(0), x, mask, train=True)
    np.testing.assert_array_equal(shapes["batch_stats"]["mean"], np.zeros(C))
    np.testing.assert_array_equal(shapes["batch_stats"]["var"], np.ones(C))


@pytest.mark.multiprocess
def test_eight_devices_have_the_statistics_of_one():
    def run(flags):
        done = subprocess.run(
            [sys.executable, "-c", ON_DEVICES],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    one, eight = run(""), run("--xla_force_host_platform_device_count=8")
    assert (one["devices"], eight["devices"]) == (1, 8)
    for a, b in zip(one["values"], eight["values"], strict=True):
        assert_close(b, a)
    # The statistics are not those of windows averaged, which would weigh short ones the same.
    x, mask = (np.asarray(v) for v in uneven_batch())
    assert_close(eight["values"][1], 0.1 * x[mask].mean(0))
