"""A batch taken a few windows at a time, so that what is computed for them stays in the cache.

What a large batch leaves between two products goes out to memory and comes back, on a processor
often dearer than the products themselves. Accelerators take the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from maven_jax.kernels.device import on_one_processor

# Intermediate results up to this size stay near a processor's cores.
CACHE_BYTES = 2**24
_KEPT = "kept by by_window"


def by_window(
    function: Callable[..., Any],
    module: nn.Module,
    *arrays: Any,
    num_bytes: int,
    at_once: int = 1,
) -> Any:
    """Returns function(module, *arrays), on one processor by a loop over the batch.

    The backward pass of the loop computes everything again that the function does not `keep`.

    Args:
        function: takes the module and arrays with the batch as first axis, of any size, and returns
            such arrays; no row depends on another one, and nothing is random.
        module: of whose parameters the function makes use.
        *arrays: trees of arrays, all with the batch as first axis.
        num_bytes: size of the largest intermediate result for the whole batch; what fits into the
            cache is computed at once.
        at_once: rows of the batch in each turn of the loop; a batch that they do not divide is
            computed at once.
    """
    rows = len(jax.tree.leaves(arrays)[0])
    small = num_bytes <= CACHE_BYTES or rows <= at_once or rows % at_once
    if small or module.is_initializing() or not on_one_processor():
        return function(module, *arrays)

    def turn(module: nn.Module, _: None, part: tuple[Any, ...]):
        return None, function(module, *part)

    policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
    turn = nn.remat(turn, policy=policy, prevent_cse=False)
    loop = nn.scan(turn, variable_broadcast="params", split_rngs={"params": False})
    parts = jax.tree.map(lambda x: x.reshape(-1, at_once, *x.shape[1:]), arrays)
    _, results = loop(module, None, parts)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), results)


def keep(x: Array) -> Array:
    """Returns x, which the loop's backward pass is to keep: it is dear to compute again."""
    return checkpoint_name(x, _KEPT)
