"""The convolution of few products against XLA's own, in value and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.side_by_side import counted_flops
from maven_jax.kernels import causal_conv as module
from maven_jax.kernels.causal_conv import MOST_TAPS, causal_conv
from tests.support.rounding import EPS
from tests.support.small_models import FAST_COMPILE


@functools.partial(jax.jit, static_argnums=(0, 4), compiler_options=FAST_COMPILE)
def with_gradients(conv, x, kernel, by, dilation):
    y, back = jax.vjp(lambda x, kernel: conv(x, kernel, dilation), x, kernel)
    return y, *back(by)


def direct(x, kernel, dilation):
    return module.direct(x, kernel, dilation)


# Frames that fill their tiles and frames that do not, fewer than one tile, and one alone.
@pytest.mark.parametrize(
    ("taps", "dilation", "t"),
    [(5, 1, 40), (5, 4, 75), (5, 8, 30), (3, 2, 21), (2, 1, 1), (4, 1, 9)],
)
def test_values_and_gradients_are_those_of_xlas_convolution(taps, dilation, t):
    draw = np.random.default_rng(0).standard_normal
    x, by = (jnp.asarray(draw((2, t, width)), jnp.float32) for width in (64, 72))
    kernel = jnp.asarray(draw((taps, 64, 72)) / (64 * taps) ** 0.5, jnp.float32)
    tiled = with_gradients(causal_conv, x, kernel, by, dilation)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(v, np.float64)) for v in (x, kernel, by)]
        exact = with_gradients(direct, *wide, dilation)
        of_absolutes = with_gradients(direct, *map(jnp.abs, wide), dilation)
    # Of outputs, of the inputs' gradient, of the kernel's gradient.
    for terms, a, b, total in zip((taps * 64, taps * 72, 2 * t), tiled, exact, of_absolutes):
        # Interpolation costs a digit, which shows where there are few terms.
        tolerance = max(terms, 100) * EPS * total.max()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("taps", "dilation", "t"), [(5, 1, 40), (5, 8, 30), (3, 2, 21), (1, 1, 3)])
def test_the_product_of_gpus_is_xlas_convolution(taps, dilation, t, dtype):
    draw = np.random.default_rng(0).standard_normal
    x, by = (jnp.asarray(draw((2, t, width)), dtype) for width in (24, 16))
    kernel = jnp.asarray(draw((taps, 24, 16)) / (24 * taps) ** 0.5, dtype)
    gathered = with_gradients(module._gathered, x, kernel, by, dilation)
    wide = [v.astype(jnp.float32) for v in (x, kernel, by)]
    exact = with_gradients(direct, *wide, dilation)
    for a, b in zip(gathered, exact):
        # One rounding of the result, besides the sums' own in float32.
        tolerance = float(jnp.finfo(dtype).eps) / 2 + 100 * EPS
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("taps", range(2, MOST_TAPS + 1))
def test_the_sums_and_products_are_a_convolution(taps):
    """In float64, where nothing hides behind rounding."""
    inputs, filters, outputs = module._matrices(taps)
    draw = np.random.default_rng(0).standard_normal
    x, kernel = draw(8), draw(taps)
    expected = np.convolve(x, kernel[::-1])[4:8]
    np.testing.assert_allclose(
        outputs.T @ ((inputs @ x) * (filters @ kernel)), expected, atol=1e-12
    )


def test_fewer_products_are_multiplied():
    x, kernel = jnp.zeros((2, 64, 128)), jnp.zeros((5, 128, 128))

    def flops(conv):
        program = with_gradients.lower(conv, x, kernel, x, 1).compile()
        return counted_flops(program)

    if jax.default_backend() != "cpu":
        pytest.skip("only processors take the tiles")
    assert flops(causal_conv) < 0.6 * flops(direct)


def test_several_devices_other_dtypes_and_small_kernels_take_xlas_own():
    x, kernel = jnp.ones((2, 9, 64)), jnp.ones((3, 64, 64))

    def dots(x, kernel):
        return str(jax.make_jaxpr(causal_conv, static_argnums=2)(x, kernel, 1)).count("dot_general")

    assert dots(x, kernel)
    assert not dots(x, kernel[..., :8])
    assert not dots(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    mesh = jax.sharding.AbstractMesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh):
        assert not dots(x, kernel)


def test_later_frames_show_in_rounding_alone():
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw((1, 40, 64)), jnp.float32)
    kernel = jnp.asarray(draw((5, 64, 64)) / 320**0.5, jnp.float32)
    y = causal_conv(x, kernel, 2)
    moved = np.abs(causal_conv(x.at[:, 13].add(1), kernel, 2) - y).max(axis=(0, 2))
    assert np.flatnonzero(moved > 1e-3).tolist() == list(range(13, 13 + 5 * 2, 2))
