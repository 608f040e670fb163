"""Selective state spaces: the scan against the recurrence, what frames see of each other."""

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.layers.mamba import SelectiveStateSpace, selective_scan
from tests.support.rounding import assert_close
from tests.support.small_models import random_params


def test_the_scan_is_the_sequential_recurrence():
    rng = np.random.default_rng(0)
    b, t, c, n = 2, 13, 3, 4
    x, step = rng.standard_normal((b, t, c)), rng.uniform(0, 1, (b, t, c))
    decay = -rng.uniform(0.1, 3, (c, n))
    into, out_of = rng.standard_normal((2, b, t, n))
    state, expected = np.zeros((b, c, n)), []
    for i in range(t):
        state = np.exp(step[:, i, :, None] * decay) * state
        state = state + step[:, i, :, None] * into[:, i, None] * x[:, i, :, None]
        expected.append((state * out_of[:, i, None]).sum(-1))
    arguments = (jnp.asarray(a, jnp.float32) for a in (x, step, decay, into, out_of))
    assert_close(jax.jit(selective_scan)(*arguments), np.stack(expected, 1))


def test_a_frame_sees_those_before_it_and_masked_ones_change_no_state():
    block = SelectiveStateSpace(3)
    u = jax.random.normal(jax.random.key(0), (1, 8, 4))
    mask = jnp.ones((1, 8), bool)
    params = random_params(block, u, mask)
    seen = jax.jit(jax.jacobian(lambda u: block.apply(params, u, mask)[0].sum(-1)))(u)[:, 0].any(-1)
    np.testing.assert_array_equal(seen, np.tri(8, dtype=bool))
    # Two masked frames, longer than the convolution: as if they were not there, but for its taps.
    gap = jnp.ones((1, 8), bool).at[:, 2:6].set(False)
    apply = jax.jit(block.apply)
    first = apply(params, u, gap)
    second = apply(params, jnp.where(gap[..., None], u, 9.0), gap)
    np.testing.assert_array_equal(first[:, [0, 1, 6, 7]], second[:, [0, 1, 6, 7]])
