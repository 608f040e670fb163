"""Products of bfloat16 with a float32 result, whose gradients are products of bfloat16 too."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def wide_einsum(
    subscripts: str, a: Float[Array, "..."], b: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Returns the sums of products in float32.

    JAX would multiply the float32 gradient of the result with the operands cast to float32, at half
    the rate or less. Here it is rounded first, as the gradients of all other products are.

    Args:
        subscripts: as of `jnp.einsum`.
        a: first operand.
        b: second operand, of the same dtype.
    """
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _forward(subscripts: str, a: Array, b: Array):
    return wide_einsum(subscripts, a, b), (a, b)


def _backward(subscripts: str, saved: tuple[Array, Array], gradient: Array):
    a, b = saved
    _, back = jax.vjp(lambda a, b: jnp.einsum(subscripts, a, b), a, b)
    return back(gradient.astype(a.dtype))


wide_einsum.defvjp(_forward, _backward)
