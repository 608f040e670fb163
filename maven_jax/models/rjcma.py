"""RJCMA, recursive joint cross-modal attention (ABAW6, 2024), and what its relatives share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.batch_norm import MaskedBatchNorm
from maven_jax.layers.heads import TanhHead
from maven_jax.layers.modalities import observed_frames
from maven_jax.layers.temporal import TemporalKind, TemporalModel, channels_of
from maven_jax.models.fusion.recursion import Recursion
from maven_jax.models.fusion.recursion_config import RecursionConfig
from maven_jax.types import Features, ModalityMasks, Prediction


class Rjcma(nn.Module, kw_only=True):
    """Temporal model and BatchNorm per modality, recursive joint correlation, tanh head.

    Any modalities of any widths. Where a modality was not observed its temporal model sees zeros,
    as the paper has it for words; all later parts see the temporal model's output there. Padding
    behind a video is masked. Source: RJCMA (ABAW6, 2024) and its released code.

    GRJCA, HGRJCA and TAGF differ in `prepare` and `aggregate` alone.

    Attributes:
        modalities: names, in order.
        temporal: see TemporalModel.
        channels: modality (or "*" for all others) -> width of each level of its temporal model.
        kernel_size: taps of the TCN.
        temporal_dropout_rate: of the temporal models.
        recursion_config: see RecursionConfig; recipes have its fields as keys of the model.
        head_dim: hidden width of the head.
        dimensions: those predicted; the column of the other one is 0.
        dtype: of the matrix products; norms and outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    temporal: TemporalKind
    channels: Mapping[str, tuple[int, ...]]
    kernel_size: int
    temporal_dropout_rate: float | int
    recursion_config: RecursionConfig
    head_dim: int
    dimensions: tuple[str, ...]
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
        *,
        train: bool,
    ) -> Prediction:
        """Returns the prediction for every frame; frames outside `frame_mask` hold anything."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        frames, masks = observed_frames(self.modalities, features, modality_masks, frame_mask)
        x = {}
        for m in self.modalities:
            value = TemporalModel(
                self.temporal,
                channels_of(self.channels, m),
                self.kernel_size,
                self.temporal_dropout_rate,
                name=f"temporal_{m}",
                **dtypes,
            )(frames[m], masks[m], deterministic=not train)
            norm = MaskedBatchNorm(param_dtype=self.param_dtype, name=f"norm_{m}")
            value = self.prepare(norm(value, frame_mask, train=train)).astype(self.dtype)
            x[m] = nn.with_logical_constraint(value, ("batch", "frames", "activation_embed"))
        steps = Recursion(self.recursion_config, name="recursion", **dtypes)(
            x, frame_mask, deterministic=not train
        )
        x = self.aggregate(steps, frame_mask, deterministic=not train)
        joint = jnp.concatenate([x[m] for m in self.modalities], axis=-1)
        return TanhHead(self.head_dim, self.dimensions, name="head", **dtypes)(
            joint, frame_mask, train=train
        )

    def prepare(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Returns what the recursion gets of a modality: all of it, as it is."""
        return x

    def aggregate(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns the features for the head, made of the recursion's steps X_0 … X_l: the last."""
        return {m: value[-1] for m, value in steps.items()}
