"""Products of bfloat16 with a float32 result, whose gradients are products of bfloat16 too."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
    result: Any = _wide(subscripts, a, b)
    return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _wide(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _forward(subscripts: str, a: Array, b: Array):
    return _wide(subscripts, a, b), (a, b)


def _backward(subscripts: str, saved: tuple[Array, Array], gradient: Array):
    a, b = saved
    _, back = jax.vjp(lambda a, b: jnp.einsum(subscripts, a, b), a, b)
    return back(gradient.astype(a.dtype))


_wide.defvjp(_forward, _backward)
