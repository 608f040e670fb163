"""TAGF: recursive joint correlation whose steps a BLSTM weights (Lee et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from maven_jax.models.fusion.gates import RecursionBlstm
from maven_jax.models.rjcma import Rjcma


class Tagf(Rjcma, kw_only=True):
    """`Rjcma` whose head sees the recursion's steps weighted by a BLSTM; see RecursionBlstm.

    Attributes:
        gate_dim: states of the BLSTM, each way.
        The others are those of Rjcma.
    """

    gate_dim: int

    def aggregate(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the weighted features."""
        gate = RecursionBlstm(
            self.gate_dim, dtype=self.dtype, param_dtype=self.param_dtype, name="gate"
        )
        return gate(steps, frame_mask, deterministic=deterministic)
