"""The short cuts of attention are exact: value, gradient and dropout are those of the formula."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.layers.attention import MultiHeadAttention, attend
from maven_jax.layers.dropout import Dropout
from tests.support.rounding import float64
from tests.support.small_models import random_params

HEADS, WIDTH = 3, 12


class Plain(nn.Module):
    """The formula: every frame is projected and every score written down."""

    rate: float

    @nn.compact
    def __call__(self, p, queries, context, mask, *, deterministic):
        def project(name, x):
            return jnp.einsum("btd,dhk->bthk", x, p[f"{name}_kernel"]) + p[f"{name}_bias"]

        dropout = Dropout(self.rate, deterministic, name="dropout")
        query, key = project("query", queries), project("key", context)
        y = attend(query, key, project("value", context), mask, dropout=dropout)
        y = jnp.einsum("bthk,hkd->btd", y, p["out_kernel"]) + p["out_bias"]
        return jnp.where(mask.any(1)[:, None, None], y, 0)


def inputs(num_queries, num_frames):
    """Queries, context and its mask; the second of three windows has no context."""
    keys = jax.random.split(jax.random.key(0), 3)
    queries = jax.random.normal(keys[0], (3, num_queries, WIDTH))
    context = jax.random.normal(keys[1], (3, num_frames, WIDTH))
    mask = jax.random.bernoulli(keys[2], 0.6, (3, num_frames)).at[:, 0].set(True)
    return queries, context, mask.at[1].set(False)


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize(("num_queries", "num_frames"), [(5, 1), (1, 7), (1, 1)])
def test_the_short_cuts_equal_the_formula(rate, num_queries, num_frames):
    queries, context, mask = inputs(num_queries, num_frames)
    model = MultiHeadAttention(HEADS, rate)
    params = random_params(model, queries, context, mask, deterministic=True)["params"]
    options = {"deterministic": not rate, "rngs": {"dropout": jax.random.key(7)}}

    def value_and_gradients(attention, *args):
        def loss(*args):
            y = attention(*args)
            return (jnp.sin(y) * jnp.arange(1.0, 1 + num_queries)[:, None]).sum(), y

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*args)

    with float64():
        dtypes = dict(dtype=jnp.float32, param_dtype=jnp.float32)
        fast, formula = MultiHeadAttention(HEADS, rate, **dtypes), Plain(rate)
        args = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, queries, context))
        short = value_and_gradients(
            lambda p, *frames: fast.apply({"params": p}, *frames, mask, **options), *args
        )
        plain = value_and_gradients(lambda *args: formula.apply({}, *args, mask, **options), *args)
    for a, b in zip(jax.tree.leaves(short), jax.tree.leaves(plain), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    y = np.asarray(short[0][1])
    np.testing.assert_array_equal(y[1], 0)
    if (num_queries, num_frames) == (5, 1):
        spread = np.abs(y[0] - y[0, :1]).max()
        assert (spread > 1e-3) == (rate > 0)


def program(num_queries, num_frames):
    args = inputs(num_queries, num_frames)
    model = MultiHeadAttention(HEADS, 0.0)
    params = random_params(model, *args, deterministic=True)
    return str(jax.make_jaxpr(lambda p: model.apply(p, *args, deterministic=True))(params))


def test_one_context_frame_needs_no_scores():
    assert "exp" not in program(5, 1)
    assert "exp" in program(5, 7)


def test_one_query_projects_no_context_frame():
    """The query among the frames and the mean are (b, h, d); keys would be (b, s, h, k)."""
    assert "[3,7,3,4]" in program(5, 7)
    assert "[3,7,3,4]" not in program(1, 7)
    assert "[3,3,12]" in program(1, 7)
