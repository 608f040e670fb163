"""GRJCA: recursive joint correlation with a gate over its steps (Praveen et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Array, Bool, Float

from maven_jax.layers.lstm import l2_normalize
from maven_jax.models.fusion.gates import SoftmaxGate
from maven_jax.models.rjcma import Rjcma


class Grjca(Rjcma, kw_only=True):
    """`Rjcma` whose head sees the recursion's steps weighted by a gate; see SoftmaxGate.

    The authors have two modalities, face and voice; any number are possible here.

    Attributes:
        gate_temperature: of the softmax; 0.1 in the paper.
        unit_length: each modality of a frame has length one before the recursion, as in the
            authors' code.
        The others are those of Rjcma.
    """

    gate_temperature: float | int
    unit_length: bool

    def prepare(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Returns each frame with length one, or as it is."""
        return l2_normalize(x) if self.unit_length else x

    def aggregate(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the gated features."""
        gate = SoftmaxGate(
            self.gate_temperature, dtype=self.dtype, param_dtype=self.param_dtype, name="gate"
        )
        return gate(steps, frame_mask, deterministic=deterministic)
