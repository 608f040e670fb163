"""The temporal model of each modality in RJCMA, its relatives, LFAN and late fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.linear import dense
from maven_jax.layers.lstm import Blstm
from maven_jax.layers.tcn import CentredTcn, Tcn

TemporalKind = Literal["tcn", "centred_tcn", "blstm", "none"]
# As in RJCA.
BLSTM_LAYERS = 2


def channels_of(channels: Mapping[str, Sequence[int]], modality: str) -> tuple[int, ...]:
    """Returns the widths of a modality's levels; those of "*" if it has none of its own.

    Raises:
        ValueError: it has neither, or no level.
    """
    widths = tuple(channels.get(modality, channels.get("*", ())))
    if not widths:
        raise ValueError(f"channels: no widths for modality {modality!r} (or '*' for all others)")
    return widths


class TemporalModel(nn.Module):
    """The temporal model of one modality, as recipes name it.

    Attributes:
        kind: "tcn": see Tcn; a frame sees earlier frames alone. "centred_tcn": a linear map and a
            CentredTcn of as many layers as there are channels, all as wide as the last; a frame
            sees as much before it as behind it. "blstm": a two-layer BLSTM, its initial state
            learned, as wide as the last of the channels. "none": the frames as they are.
        channels: width of each level of the TCN.
        kernel_size: its taps.
        dropout_rate: of either.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    kind: TemporalKind
    channels: tuple[int, ...]
    kernel_size: int
    dropout_rate: float | int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Returns a representation of each frame, finite whatever lies under the mask.

        Raises:
            ValueError: unknown kind, an odd width for a BLSTM, an even kernel for a centred TCN.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.kind == "tcn":
            model = Tcn(self.channels, self.kernel_size, self.dropout_rate, name="tcn", **dtypes)
            return model(x, mask, deterministic=deterministic)
        if self.kind == "centred_tcn":
            width, layers = self.channels[-1], len(self.channels)
            x = jnp.where(mask[..., None], x, 0)
            x = dense(width, ("embed", "mlp"), name="embed", **dtypes)(x)
            model = CentredTcn(
                width, layers, self.kernel_size, self.dropout_rate, name="tcn", **dtypes
            )
            return model(x, mask, deterministic=deterministic)
        if self.kind == "blstm":
            hidden_dim, odd = divmod(self.channels[-1], 2)
            if odd:
                raise ValueError(f"channels: a BLSTM cannot be {self.channels[-1]} wide: odd")
            model = Blstm(hidden_dim, BLSTM_LAYERS, self.dropout_rate, True, name="blstm", **dtypes)
            return model(x, mask, deterministic=deterministic)
        if self.kind == "none":
            return jnp.where(mask[..., None], x, 0).astype(self.dtype)
        raise ValueError(f"temporal is {self.kind!r}; choose from {get_args(TemporalKind)}")
