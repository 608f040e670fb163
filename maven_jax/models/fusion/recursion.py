"""The recursion: joint correlation applied to its own output, step after step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.kernels.layer_scan import layers_written_out
from maven_jax.models.fusion.joint_correlation import JointCorrelation
from maven_jax.models.fusion.recursion_config import RecursionConfig


class Recursion(nn.Module):
    """`JointCorrelation` l times, the joint features built anew from each step's result.

    One scan, which on GPUs is written out. Weights of steps of
    their own are stacked along a leading axis l (logical name "layers"); the parameters' names are
    `step/…` in both cases. Source: RJCA (Praveen et al., 2023/24), RJCMA (ABAW6, 2024); the papers
    give each step its own weights.

    Attributes:
        config: form and sizes.
        dtype: of the products and of the result.
        param_dtype: of the parameters.
    """

    config: RecursionConfig
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
            ValueError: see JointCorrelation.
        """
        # JAX sorts the keys of a dict; what is carried is a tuple, so that the joint features keep
        # the order of `x`.
        modalities = tuple(x)
        first = tuple(
            jnp.where(frame_mask[..., None], x[m], 0).astype(self.dtype) for m in modalities
        )
        if not self.config.num_steps:
            return {m: value[None] for m, value in zip(modalities, first)}

        def body(step: JointCorrelation, carry: tuple[Array, ...], _: None):
            updated = step(dict(zip(modalities, carry)), frame_mask, deterministic=deterministic)
            carry = tuple(updated[m] for m in modalities)
            return carry, carry

        if self.config.remat:
            # Inside a scan nothing can be eliminated that should be recomputed.
            body = nn.remat(body, prevent_cse=False)
        axes: dict[str, Any] = (
            {"variable_broadcast": "params"}
            if self.config.share_weights
            else {
                "variable_axes": {"params": 0},
                "metadata_params": {nn.PARTITION_NAME: "layers"},
            }
        )
        scan = nn.scan(
            body,
            split_rngs={"params": not self.config.share_weights, "dropout": True},
            length=self.config.num_steps,
            unroll=layers_written_out(self.config.num_steps),
            **axes,
        )
        step = JointCorrelation(self.config, self.dtype, self.param_dtype, name="step")
        _, later = scan(step, first, None)
        return {
            m: jnp.concatenate([start[None], rest])
            for m, start, rest in zip(modalities, first, later)
        }
