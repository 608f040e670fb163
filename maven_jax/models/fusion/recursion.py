"""The recursion: joint correlation applied to its own output, step after step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.processor import on_one_processor
from maven_jax.models.fusion.joint_correlation import JointCorrelation

# So few steps are written out on a processor, where a loop's stacks of what its gradient needs cost
# more than the loop saves. The program of more steps is a loop of one, however many they are.
_FEW = 2


class Recursion(nn.Module):
    """`JointCorrelation` l times, the joint features built anew from each step's result.

    One scan: size of the program and time to compile it do not grow with l. Weights of steps of
    their own are stacked along a leading axis l (logical name "layers"); the parameters' names are
    `step/…` in both cases. Source: RJCA (Praveen et al., 2023/24), RJCMA (ABAW6, 2024); the papers
    give each step its own weights.

    Attributes:
        num_steps: l ≥ 0; 0 has no parameters and leaves the modalities as they are.
        share_weights: one set of weights for all steps, or one for each.
        remat: recompute each step in the backward pass instead of keeping what it computed.
        unroll: write the steps out one after the other; the program then grows with l.
        Others: those of JointCorrelation.
    """

    num_steps: int
    share_weights: bool
    remat: bool
    correlation: str
    window_length: int
    attention_dim: int
    joint: str
    joint_dim: int
    query: str
    dropout_rate: float | int
    unroll: bool = False
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Mapping[str, Float[Array, "b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "_ b t _"]]:
        """Returns X_0 … X_l of each modality, (l+1, b, t, d_m), zero on masked frames.

        Raises:
            ValueError: l < 0, or see JointCorrelation.
        """
        if self.num_steps < 0:
            raise ValueError(f"num_steps={self.num_steps}: the recursion has 0 or more steps")
        # JAX sorts the keys of a dict; what is carried is a tuple, so that the joint features keep
        # the order of `x`.
        modalities = tuple(x)
        first = tuple(
            jnp.where(frame_mask[..., None], x[m], 0).astype(self.dtype) for m in modalities
        )
        if not self.num_steps:
            return {m: value[None] for m, value in zip(modalities, first)}

        def body(step: JointCorrelation, carry: tuple[Array, ...], _: None):
            updated = step(dict(zip(modalities, carry)), frame_mask, deterministic=deterministic)
            carry = tuple(updated[m] for m in modalities)
            return carry, carry

        if self.remat:
            # Inside a scan nothing can be eliminated that should be recomputed.
            body = nn.remat(body, prevent_cse=False)
        axes: dict[str, Any] = (
            {"variable_broadcast": "params"}
            if self.share_weights
            else {
                "variable_axes": {"params": 0},
                "metadata_params": {nn.PARTITION_NAME: "layers"},
            }
        )
        few = self.num_steps <= _FEW and on_one_processor()
        scan = nn.scan(
            body,
            split_rngs={"params": not self.share_weights, "dropout": True},
            length=self.num_steps,
            unroll=self.num_steps if self.unroll or few else 1,
            **axes,
        )
        _, later = scan(self._step(), first, None)
        return {
            m: jnp.concatenate([start[None], rest])
            for m, start, rest in zip(modalities, first, later)
        }

    def _step(self) -> JointCorrelation:
        return JointCorrelation(
            correlation=self.correlation,
            window_length=self.window_length,
            attention_dim=self.attention_dim,
            joint=self.joint,
            joint_dim=self.joint_dim,
            query=self.query,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="step",
        )
