"""Attention against torch, its short cut for one context frame, and its masks."""

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
    found = model.apply(params, queries, context, mask, deterministic=True)
    q, c = torch.tensor(np.array(queries)), torch.tensor(np.array(context))
    with torch.no_grad():
        expected, _ = torch_attention(params, 3)(
            q, c, c, key_padding_mask=torch.tensor(~np.array(mask))
        )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("single", ["s", "q"])
def test_the_closed_forms_for_one_context_frame_and_one_query_are_exact(rate, single):
    """In value and gradient, with the same dropout, and for a window without context."""
    _, params, queries, context, mask = setup(**{single: 1})
    mask = mask.at[1].set(False)
    results = []
    for closed_form in (True, False):
        model = MultiHeadAttention(3, rate, closed_form=closed_form)

        @jax.jit
        def run(params, queries, context, model=model):
            out = model.apply(
                params,
                queries,
                context,
                mask,
                deterministic=rate == 0,
                rngs={"dropout": jax.random.key(7)},
            )
            return (jnp.sin(out) * jnp.arange(1.0, 1 + out.shape[1])[:, None]).sum(), out

        (_, out), gradients = jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True)(
            params, queries, context
        )
        results.append((out, gradients))
    for a, b in zip(*(jax.tree.leaves(result) for result in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    out = results[0][0]
    np.testing.assert_array_equal(out[1], 0)
    if single == "s":
        spread = float(jnp.abs(out[0] - out[0, :1]).max())
        assert (spread > 1e-3) == (rate > 0)


def test_the_short_cut_forms_no_scores():
    model, params, queries, context, mask = setup(s=1)
    program = str(
        jax.make_jaxpr(lambda p: model.apply(p, queries, context, mask, deterministic=True))(params)
    )
    assert "exp" not in program


def test_the_short_cut_for_one_query_projects_no_context_frame():
    """The folded query and the mean are (b, h, d); keys and values would be (b, s, h, k)."""
    model, params, queries, context, mask = setup(q=1)
    program = str(
        jax.make_jaxpr(lambda p: model.apply(p, queries, context, mask, deterministic=True))(params)
    )
    assert "[3,7,3,4]" not in program
    assert "[3,3,12]" in program


def test_a_window_without_valid_context_gives_zeros():
    model, params, queries, context, mask = setup()
    mask = mask.at[2].set(False)
    found = model.apply(params, queries, context, mask, deterministic=True)
    np.testing.assert_array_equal(found[2], 0)
    assert (np.abs(found[:2]).max(axis=(1, 2)) > 0).all()


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
