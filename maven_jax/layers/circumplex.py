"""The emotion circle: (valence, arousal) and (intensity, angle) are the same point.

Convention, used by every head and loss: intensity I = sqrt(valence² + arousal²) is at least 0 for
targets (a network's raw intensity may be negative: it names the point opposite); the angle is in
radians, 0 along positive valence, π/2 along positive arousal, within [-π, π]. At the origin, where
the angle means nothing, it is 0. Source: MAVEN (CVPRW 2025).
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from maven_jax.types import AROUSAL, VALENCE

INTENSITY, ANGLE = 0, 1


def to_polar(va: Float[Array, "*batch 2"]) -> Float[Array, "*batch 2"]:
    """Returns (intensity, angle); values and gradients are finite everywhere, 0 at the origin."""
    valence, arousal = va[..., VALENCE], va[..., AROUSAL]
    square = valence**2 + arousal**2
    somewhere = square > 0
    # Both branches of a `where` are differentiated: the unused one needs a harmless argument.
    intensity = jnp.where(somewhere, jnp.sqrt(jnp.where(somewhere, square, 1.0)), 0.0)
    angle = jnp.arctan2(
        jnp.where(somewhere, arousal, 0.0),
        jnp.where(somewhere, valence, 1.0),
    )
    return jnp.stack([intensity, angle], axis=-1)


def from_polar(polar: Float[Array, "*batch 2"]) -> Float[Array, "*batch 2"]:
    """Returns (valence, arousal) = (I cos θ, I sin θ): smooth, and without a seam at ±π."""
    intensity, angle = polar[..., INTENSITY], polar[..., ANGLE]
    return jnp.stack([intensity * jnp.cos(angle), intensity * jnp.sin(angle)], axis=-1)


def angle_difference(
    first: Float[Array, "*batch"], second: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Returns first - second along the shorter way round, in [-π, π]; its gradient is that of -."""
    difference = first - second
    return difference - 2 * jnp.pi * jnp.round(difference / (2 * jnp.pi))
