"""The random bits of dropout: four decisions from each block of JAX's generator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p
from jaxtyping import Array, Bool

from maven_jax.kernels.device import platform

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
        if platform() == "cpu":
            words = _threefry(key_words[0], key_words[1], counts)
        else:
            zeros = jnp.zeros(blocks, jnp.uint32)
            words = threefry2x32_p.bind(key_words[0], key_words[1], zeros, counts)
    else:
        words = jax.random.bits(key, (2, *blocks), jnp.uint32)
    parts = [part < threshold for word in words for part in (word & 0xFFFF, word >> 16)]
    return jnp.concatenate(parts, axis=-1)[..., : shape[-1]], threshold / _LEVELS


def _threefry(key_0: Array, key_1: Array, counts: Array) -> tuple[Array, Array]:
    """`threefry2x32_p` of the blocks (0, counts), bit for bit, as one expression.

    On processors JAX makes it a loop of five passes over memory, with copies between them.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    """
    keys = (key_0, key_1, key_0 ^ key_1 ^ jnp.uint32(0x1BD11BDA))
    x, y = keys[0], counts + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = x ^ ((y << turn) | (y >> (32 - turn)))
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y
