"""HGRJCA: recursive joint correlation with gates in two levels (Praveen et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from maven_jax.models.fusion.gates import HierarchicalGate
from maven_jax.models.rjcma import Rjcma


class Hgrjca(Rjcma, kw_only=True):
    """`Rjcma` with a gate for each step and one over all of them; see HierarchicalGate.

    The paper has two modalities, face and voice; any number are possible here.

    Attributes:
        gate_temperature: of the softmax; 0.1 in the paper.
        The others are those of Rjcma.
    """

    gate_temperature: float | int

    def aggregate(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the gated features."""
        gate = HierarchicalGate(
            self.gate_temperature, dtype=self.dtype, param_dtype=self.param_dtype, name="gate"
        )
        return gate(steps, frame_mask, deterministic=deterministic)
