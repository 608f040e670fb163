"""The bits of dropout: rates, independence, and the same draw however it is laid on devices."""

import hashlib

import jax
import numpy as np
import pytest

from maven_jax.kernels import random_bits
from maven_jax.kernels.random_bits import keep_mask
from tests.support.processes import run_processes


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.6])
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_the_rate_is_kept_in_every_quarter_of_the_last_axis(rate, kind):
    keep, probability = keep_mask(jax.random.key(3, impl=kind), rate, (50, 40, 100))
    assert abs(probability - (1 - rate)) < 1e-5
    for quarter in np.split(np.asarray(keep), 4, axis=-1):  # 50,000 decisions: 5 standard errors
        assert abs(quarter.mean() - (1 - rate)) < 5 * (rate * (1 - rate) / quarter.size) ** 0.5


def test_decisions_are_independent_of_each_other():
    """Those of one block of bits too: a quarter of the last axis apart."""
    keep, p = keep_mask(jax.random.key(0), 0.5, (300, 400))
    x = (np.asarray(keep) - p).reshape(300, 4, 100)
    for i in range(4):
        for j in range(i):
            assert abs((x[:, i] * x[:, j]).mean()) < 5 * 0.25 / (300 * 100) ** 0.5
    assert abs((x[1:] * x[:-1]).mean()) < 5 * 0.25 / 120_000**0.5


@pytest.mark.parametrize("shape", [(5, 7), (3, 1), (2, 3, 6), (9,)])
def test_any_shape(shape):
    keep, _ = keep_mask(jax.random.key(1), 0.5, shape)
    assert keep.shape == shape


# The digest of a mask that is computed where its rows and columns lie on `data` x `model` devices.
_DRAW = """
import hashlib, json, functools
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from maven_jax.kernels import random_bits
from maven_jax.kernels.random_bits import keep_mask

def digest(data, model):
    mesh = jax.make_mesh((data, model), ("data", "model"))
    draw = jax.jit(
        lambda key: keep_mask(key, 0.3, (16, 6, 40))[0],
        out_shardings=NamedSharding(mesh, P("data", None, "model")),
    )
    return hashlib.sha256(np.asarray(draw(jax.random.key(5))).tobytes()).hexdigest()

print(json.dumps([digest(*shape) for shape in ((1, 1), (8, 1), (2, 4), (1, 8))]))
"""


def test_every_mesh_draws_what_one_device_draws():
    (digests,) = run_processes(_DRAW, processes=1, devices=8)
    here = np.asarray(keep_mask(jax.random.key(5), 0.3, (16, 6, 40))[0])
    assert digests == [hashlib.sha256(here.tobytes()).hexdigest()] * 4


def test_the_expression_for_processors_draws_what_jaxs_generator_does(monkeypatch):
    key = jax.random.key(7)
    fast, _ = keep_mask(key, 0.3, (5, 6, 41))
    monkeypatch.setattr(random_bits, "platform", lambda: "tpu")
    plain, _ = keep_mask(key, 0.3, (5, 6, 41))
    np.testing.assert_array_equal(fast, plain)
