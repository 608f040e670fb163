"""Spatial pooling of the face's feature map, led by the voice."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from maven_jax.kernels.processor import on_one_processor
from maven_jax.layers.linear import XAVIER, dense

# Maps up to this size, in bytes, stay near a processor's cores.
_IN_CACHE = 2**24


def split_positions(
    x: Float[Array, "b t pc"], positions: int, layout: str
) -> Float[Array, "b t p c"]:
    """Returns a flat feature map, stored position after position, as (positions, channels).

    Args:
        x: (b, t, positions · channels).
        positions: of the map.
        layout: "positions": each row is one position. "released": the released weights were trained
            on rows cut from the map stored channel after channel, whose rows each hold stretches of
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
    """A weighted mean over positions whose weights depend on a guide, and a linear layer.

    α = softmax_p(w_h · tanh(W_v relu(A_v V_p) + W_g relu(A_a G))), Linear(Σ_p α_p V_p), with as
    many hidden units as positions. One position leaves nothing to weigh: only the linear layer.

    The maps are by far the largest thing in their model, so they are read often enough as they are:
    V = `scale` · x is never written down.

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
        self,
        x: Float[Array, "b t p c"],
        scale: Float[Array, "b t"],
        guide: Float[Array, "b t g"] | None,
    ) -> Float[Array, "b t d"]:
        """Returns one vector per frame.

        Args:
            x: the feature map.
            scale: factor of each frame's whole map.
            guide: a vector per frame; unused with one position.

        Raises:
            ValueError: no guide for several positions.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        positions = x.shape[2]
        x = x.astype(self.dtype)
        scale = scale.astype(self.dtype)
        output = dense(self.dim, ("mlp", "embed"), name="output", **dtypes)
        if positions == 1:
            return output(scale[..., None] * x[:, :, 0])
        if guide is None:
            raise ValueError(f"no modality guides the pooling over {positions} positions")
        guide = nn.relu(dense(self.dim, ("embed", "mlp"), name="guide", **dtypes)(guide))
        led = self._without_bias(positions, "guide_content")(guide)  # (b, t, units)
        in_cache = x.size * x.dtype.itemsize <= _IN_CACHE
        if in_cache or self.is_initializing() or not on_one_processor():
            return output(self._weigh(x, scale, led))

        # Of what is computed for a window nothing goes through memory but what the gradient cannot
        # do without, the largest product.
        def of_window(pool: AudioGuidedPool, _: None, window: tuple[Array, ...]):
            return None, pool._weigh(*window)

        keep = jax.checkpoint_policies.save_only_these_names("hidden")
        of_window = nn.remat(of_window, policy=keep, prevent_cse=False)
        windows = nn.scan(of_window, variable_broadcast="params", split_rngs={"params": False})
        return output(windows(self, None, (x, scale, led))[1])

    def _without_bias(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=False,
            kernel_init=nn.with_logical_partitioning(XAVIER, ("mlp", None)),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def _weigh(
        self,
        x: Float[Array, "*b t p c"],
        scale: Float[Array, "*b t"],
        led: Float[Array, "*b t units"],
    ) -> Float[Array, "*b t c"]:
        """Returns Σ_p α_p V_p; `led` is the guide's part of the hidden units."""
        *frames, positions, channels = x.shape

        def scaled(rows: Array, kernel: Array, *args: Any, **kwargs: Any) -> Array:
            product = lax.dot_general(rows, kernel, *args, **kwargs)
            product = product.reshape(*frames, positions, -1) * scale[..., None, None]
            return product.reshape(len(rows), -1)

        # As a matrix: the kernel's gradient over several axes would copy the maps transposed.
        hidden = dense(
            self.dim,
            ("embed", "mlp"),
            name="map",
            dot_general=scaled,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )(x.reshape(-1, channels))
        hidden = nn.relu(checkpoint_name(hidden, "hidden"))
        content = self._without_bias(positions, "map_content")(hidden)
        content = content.reshape(*frames, positions, -1)  # (b, t, p, units)
        content += led[..., None] if self.layout == "released" else led[..., None, :]
        score = self._without_bias(1, "score")(jnp.tanh(content))[..., 0]
        alpha = jax.nn.softmax(score.astype(jnp.float32), axis=-1).astype(self.dtype)
        return jnp.einsum("...p,...pc->...c", alpha * scale[..., None], x)
