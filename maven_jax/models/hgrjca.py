"""HGRJCA: recursive joint correlation with gates in two levels (Praveen et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from maven_jax.models.fusion.gates import HierarchicalGate
from maven_jax.models.grjca import Grjca


class Hgrjca(Grjca, kw_only=True):
    """`Grjca` with a gate behind each step and one over these stages; see HierarchicalGate."""

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
