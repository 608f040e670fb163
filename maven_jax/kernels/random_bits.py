"""The random bits of dropout: four decisions from each block of JAX's generator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Bool

# A decision takes 16 random bits, so that a rate is kept to within 1 / 131072.
_LEVELS = 2**16
_PER_BLOCK = 4


def keep_mask(
    key: Array, rate: float | int, shape: tuple[int, ...]
) -> tuple[Bool[Array, "*shape"], float]:
    """Returns which elements stay, and the exact probability with which they do.

    The counter-based generator makes blocks of 64 bits, of which `jax.random.bernoulli` spends 32
    on a decision. On a CPU that costs more than the layer that is dropped out. Here a block decides
    about four elements, a quarter of the last axis apart. A block belongs to its elements by index
    alone: a mesh of devices draws what a single device draws.

    Args:
        key: a threefry key; of another generator the bits come by `jax.random.bits`.
        rate: probability of leaving out an element, in [0, 1).
        shape: of the mask, not ().
    """
    threshold = round((1.0 - rate) * _LEVELS)
    blocks = (*shape[:-1], -(-shape[-1] // _PER_BLOCK))
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if str(jax.random.key_impl(key)) == "threefry2x32":
        key_words = jax.random.key_data(key)
        counts = jnp.zeros(blocks, jnp.uint32)
        stride = 1
        for axis in reversed(range(len(blocks))):
            counts += jax.lax.broadcasted_iota(jnp.uint32, blocks, axis) * jnp.uint32(stride)
            stride *= blocks[axis]
        zeros = jnp.zeros(blocks, jnp.uint32)
        words = threefry2x32_p.bind(key_words[0], key_words[1], zeros, counts)
    else:
        words = jax.random.bits(key, (2, *blocks), jnp.uint32)
    parts = [part < threshold for word in words for part in (word & 0xFFFF, word >> 16)]
    return jnp.concatenate(parts, axis=-1)[..., : shape[-1]], threshold / _LEVELS
