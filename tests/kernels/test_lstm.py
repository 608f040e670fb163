"""The GPU's program for LSTMs, interpreted, against the scan, in value and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.kernels import lstm, lstm_triton

H, T = 64, 5


def arguments(b, reverse):
    draw = np.random.default_rng(0)
    n = len(reverse)
    frames = jnp.asarray(draw.standard_normal((n, b, T, 4 * H)), jnp.bfloat16)
    recurrent = jnp.asarray(draw.standard_normal((n, H, 4 * H)) / 8, jnp.bfloat16)
    hidden = jnp.asarray(draw.standard_normal((n, b, H)) / 2, jnp.bfloat16).astype(jnp.float32)
    cell = jnp.asarray(draw.standard_normal((n, b, H)), jnp.float32)
    mask = jnp.asarray(draw.random((b, T)) < 0.7).at[0].set(False)
    by = jnp.asarray(draw.standard_normal((n, b, T, H)), jnp.bfloat16)
    return frames, recurrent, hidden, cell, mask, by


@pytest.mark.parametrize(("b", "reverse"), [(16, (False, True)), (19, (False,)), (3, (True,))])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_values_and_gradients_are_those_of_the_scan(b, reverse, platform, monkeypatch):
    frames, recurrent, hidden, cell, mask, by = arguments(b, reverse)

    def fused(frames, recurrent, hidden, cell):
        return lstm_triton.run(reverse, frames, recurrent, (hidden, cell), mask, interpret=True)

    def scanned(frames, recurrent, hidden, cell):
        start = list(zip(hidden, cell))
        return jnp.stack(lstm.run_lstms(reverse, list(frames), list(recurrent), start, mask))

    def run(function, dtype):
        inputs = (x.astype(dtype) for x in (frames, recurrent))
        y, back = jax.vjp(function, *inputs, hidden, cell)
        return y, *back(by.astype(y.dtype))

    monkeypatch.setattr(lstm, "platform", lambda: platform)
    # The scan in float32 is exact beside what bfloat16 rounds.
    for a, b in zip(run(fused, jnp.bfloat16), run(scanned, jnp.float32), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max())
