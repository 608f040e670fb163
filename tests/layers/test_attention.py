"""Attention against torch, and its masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.layers.attention import MultiHeadAttention
from tests.support.small_models import random_params


def setup(b=3, q=5, s=7, d=12, heads=3, rate=0.0, **attributes):
    keys = jax.random.split(jax.random.key(0), 3)
    queries = jax.random.normal(keys[0], (b, q, d))
    context = jax.random.normal(keys[1], (b, s, d))
    mask = jax.random.bernoulli(keys[2], 0.6, (b, s)).at[:, 0].set(True)
    model = MultiHeadAttention(heads, rate, **attributes)
    params = random_params(model, queries, context, mask, deterministic=True)
    return model, params, queries, context, mask


def test_parity_with_torch():
    torch = pytest.importorskip("torch")
    from tests.support.reference_attention import torch_attention

    model, params, queries, context, mask = setup()
    attended = model.apply(params, queries, context, mask, deterministic=True)
    q, c = torch.tensor(np.array(queries)), torch.tensor(np.array(context))
    with torch.no_grad():
        expected, _ = torch_attention(params, 3)(
            q, c, c, key_padding_mask=torch.tensor(~np.array(mask))
        )
    np.testing.assert_allclose(attended, expected.numpy(), atol=1e-5)


def test_a_window_without_valid_context_gives_zeros():
    model, params, queries, context, mask = setup()
    mask = mask.at[2].set(False)
    attended = model.apply(params, queries, context, mask, deterministic=True)
    np.testing.assert_array_equal(attended[2], 0)
    assert (np.abs(attended[:2]).max(axis=(1, 2)) > 0).all()


def test_bfloat16_stays_close_to_float32():
    model, params, queries, context, mask = setup()
    exact = model.apply(params, queries, context, mask, deterministic=True)
    coarse = MultiHeadAttention(3, 0.0, dtype=jnp.bfloat16).apply(
        params, queries, context, mask, deterministic=True
    )
    assert coarse.dtype == jnp.bfloat16
    np.testing.assert_allclose(coarse.astype(jnp.float32), exact, atol=0.1)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads 5 does not divide the width 12"):
        setup(heads=5)


def test_the_bias_of_the_keys_has_no_gradient_not_even_noise():
    model, params, *inputs = setup()

    def loss(params):
        return jnp.square(model.apply(params, *inputs, deterministic=True)).sum()

    gradient = jax.grad(loss)(params)["params"]
    np.testing.assert_array_equal(gradient["key_bias"], 0)
    assert np.abs(gradient["query_bias"]).max() > 1e-4
