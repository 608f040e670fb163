"""Spatial pooling of the face's feature map, guided by the voice."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.kernels.by_window import by_window, keep
from maven_jax.layers.linear import Linear, dense


def split_positions(
    x: Float[Array, "b t pc"], positions: int, layout: str
) -> Float[Array, "b t p c"]:
    """Returns a flat feature map, stored position after position, as (positions, channels).

    Args:
        x: (b, t, positions · channels).
        positions: of the map.
        layout: "positions": each row is one position. "released": the released weights were trained
            on rows cut from the map stored channel after channel, so that a row holds stretches of
            several channels; the map is put into that order first.

    Raises:
        ValueError: the width is not a multiple of `positions`, or the layout is unknown.
    """
    if layout not in ("positions", "released"):
        raise ValueError(f"layout is {layout!r}; choose 'positions' or 'released'")
    if x.shape[-1] % positions:
        raise ValueError(f"features {x.shape[-1]} wide do not hold {positions} positions")
    x = x.reshape(*x.shape[:2], positions, -1)
    if layout == "released":
        x = jnp.swapaxes(x, 2, 3).reshape(x.shape)
    return x


class AudioGuidedPool(nn.Module):
    """A weighted mean over positions, weighted by a guide, and a linear layer.

    With V_p the map at position p and G the guide,
    α = softmax_p(w_h · tanh(W_v relu(A_v V_p) + W_g relu(A_a G))), and the result is
    Linear(Σ_p α_p V_p). There are as many hidden units as positions. With one position nothing is
    weighed: the linear layer alone.

    Attributes:
        dim: width of the hidden layers and of the result.
        layout: "positions": the formula, in which the guide adds one vector to the hidden units of
            all positions. "released": RJCA's released code, in which it adds one number per
            position to all of that position's units (there are as many of either).
        dtype: of the products and of the result; the softmax is float32.
        param_dtype: of the parameters.
    """

    dim: int
    layout: str
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, maps: Float[Array, "b t p c"], guide: Float[Array, "b t g"] | None
    ) -> Float[Array, "b t d"]:
        """Returns one vector per frame.

        Args:
            maps: the feature maps.
            guide: a vector per frame; unused with one position.

        Raises:
            ValueError: no guide for several positions.
        """
        positions = maps.shape[2]
        maps = maps.astype(self.dtype)
        output = self._dense("output", ("mlp", "embed"))
        if positions == 1:
            return output(maps[:, :, 0])
        if guide is None:
            raise ValueError(f"no modality guides the pooling over {positions} positions")
        guide = nn.relu(self._dense("guide", ("embed", "mlp"))(guide))
        guide = self._without_bias("guide_content", positions)(guide)  # (b, t, units)
        num_bytes = maps.size * maps.dtype.itemsize
        return output(by_window(AudioGuidedPool._pool, self, maps, guide, num_bytes=num_bytes))

    def _pool(
        self, maps: Float[Array, "b t p c"], guide: Float[Array, "b t units"]
    ) -> Float[Array, "b t c"]:
        """Returns Σ_p α_p V_p; `guide` is the guide's part of the hidden units."""
        positions = maps.shape[2]
        hidden = nn.relu(keep(self._dense("map", ("embed", "mlp"))(maps)))
        content = self._without_bias("map_content", positions)(hidden)  # (b, t, p, units)
        content += guide[..., None] if self.layout == "released" else guide[..., None, :]
        score = self._without_bias("score", 1)(jnp.tanh(content))[..., 0]
        alpha = jax.nn.softmax(score.astype(jnp.float32), axis=-1).astype(self.dtype)
        return jnp.einsum("btp,btpc->btc", alpha, maps)

    def _dense(self, name: str, axes: tuple[str, str]) -> Linear:
        return dense(self.dim, axes, name=name, dtype=self.dtype, param_dtype=self.param_dtype)

    def _without_bias(self, name: str, features: int) -> Linear:
        return dense(
            features,
            ("mlp", None),
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
