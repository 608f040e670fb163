"""What lies around a frame: averages of features over boxes of time."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def box_average(
    x: Float[Array, "b t c"], mask: Bool[Array, "b t"], width: int
) -> Float[Array, "b t c"]:
    """The mean of the observed frames among the `width` frames around each frame.

    Frame i takes the frames from i - width // 2 on, `width` of them; what lies beyond the window's
    ends does not count. Zero where none of them was observed.

    Args:
        x: features; frames outside `mask` may hold anything.
        mask: observed frames.
        width: frames; 1 leaves the features as they are.
    """
    x = jnp.where(mask[..., None], x, 0)
    if width == 1:
        return x
    num_frames = x.shape[1]
    first = jnp.arange(num_frames) - width // 2
    low, high = jnp.maximum(first, 0), jnp.minimum(first + width, num_frames)

    def box_sum(values: Array) -> Array:
        sums = jnp.pad(jnp.cumsum(values, axis=1), ((0, 0), (1, 0), (0, 0)))
        return sums[:, high] - sums[:, low]

    count = box_sum(mask[..., None].astype(x.dtype))
    return jnp.where(count > 0, box_sum(x) / jnp.maximum(count, 1), 0)
