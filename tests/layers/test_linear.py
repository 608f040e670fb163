"""The linear map and the layer norm against their formulas, Linen's own, and NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maven_jax.layers.linear import XAVIER, LayerNorm, Linear
from tests.support.small_models import random_params

X = jax.random.normal(jax.random.key(1), (2, 3, 4, 5))


def test_one_axis_starts_and_computes_as_linens_dense_does():
    ours = Linear(6, ("embed", "mlp"), kernel_init=XAVIER)
    linen = nn.Dense(6, kernel_init=XAVIER)
    params, expected = (nn.meta.unbox(m.init(jax.random.key(0), X)) for m in (ours, linen))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    np.testing.assert_allclose(ours.apply(params, X), linen.apply(params, X), atol=1e-6)


def test_several_axes_to_several():
    model = Linear((6, 2), ("heads", "head_dim", None, "mlp"))
    params = random_params(model, X)
    kernel, bias = params["params"]["kernel"], params["params"]["bias"]
    assert (kernel.shape, bias.shape) == ((4, 5, 6, 2), (6, 2))
    expected = jnp.einsum("abhk,hkde->abde", X, kernel) + bias
    np.testing.assert_allclose(model.apply(params, X), expected, atol=1e-5)
    specs = nn.get_partition_spec(jax.eval_shape(model.init, jax.random.key(0), X))["params"]
    assert tuple(specs["kernel"]) == ("heads", "head_dim", None, "mlp")
    assert tuple(specs["bias"]) == (None, "mlp")


def test_kernels_start_with_the_variance_of_the_fan_in_of_all_inputs():
    x = jnp.ones((1, 20, 30))
    params = Linear((10, 40), ("heads", "head_dim", None, "mlp")).init(jax.random.key(0), x)
    kernel = nn.meta.unbox(params)["params"]["kernel"]
    assert kernel.std() == pytest.approx((20 * 30) ** -0.5, rel=0.02)


def test_dtypes_of_computation_and_parameters():
    model = Linear(3, ("embed", "mlp"), dtype=jnp.bfloat16, param_dtype=jnp.float16)
    params = model.init(jax.random.key(0), X)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float16")}
    assert model.apply(params, X).dtype == jnp.bfloat16


@pytest.mark.parametrize("axes", [("norm",), (None, "norm")])
def test_layer_norm_far_from_zero(axes):
    """In float32, E[x²] − E[x]² would lose the variance."""
    x = X + 1000
    model = LayerNorm(1e-12, axes=axes)
    params = random_params(model, x)
    last = tuple(range(-len(axes), 0))
    exact = np.asarray(x, np.float64)
    exact = exact - exact.mean(last, keepdims=True)
    exact /= np.sqrt(np.square(exact).mean(last, keepdims=True) + 1e-12)
    scale, bias = params["params"]["scale"], params["params"]["bias"]
    assert scale.shape == x.shape[-len(axes) :]
    np.testing.assert_allclose(model.apply(params, x), exact * scale + bias, atol=1e-3)
