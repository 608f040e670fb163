"""RJCMA, recursive joint cross-modal attention (ABAW6, 2024), and the frame of its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.batch_norm import MaskedBatchNorm
from maven_jax.layers.heads import TanhHead
from maven_jax.layers.modalities import observed_frames
from maven_jax.layers.temporal import TemporalKind, TemporalModel, channels_of
from maven_jax.models.fusion.recursion import Recursion
from maven_jax.types import Features, ModalityMasks, Prediction


class Rjcma(nn.Module, kw_only=True):
    """Temporal model and BatchNorm per modality, recursive joint correlation, tanh head.

    Any modalities of any widths. Frames in which a modality was not observed are zeros to its
    temporal model, as the words' are in the paper; all other parts see its output there. Padding
    behind a video is masked. Source: RJCMA (ABAW6, 2024); the released code.

    GRJCA, HGRJCA and TAGF differ in `aggregate` alone.

    Attributes:
        modalities: names, in order.
        temporal: see TemporalModel.
        channels: modality (or "*" for all others) -> width of each level of its temporal model.
        kernel_size: taps of the TCN.
        temporal_dropout_rate: of the temporal models.
        correlation: form of the joint correlation; see JointCorrelation for this one to `query`.
        window_length: frames of a window, which the parameters are tied to if `num_steps` > 0.
        num_steps: of the recursion; 0 is plain concatenation.
        share_weights: the same weights at each step.
        attention_dim: k, for "channel".
        joint: "concat" or "linear".
        joint_dim: width of J, for "linear".
        query: for "dense".
        correlation_dropout_rate: inside the joint correlation.
        remat: recompute the recursion's activations in the backward pass.
        head_dim: hidden width of the head.
        dimensions: predicted ones; the column of the other one is 0.
        dtype: of the matrix products; norms and outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    temporal: TemporalKind
    channels: Mapping[str, tuple[int, ...]]
    kernel_size: int
    temporal_dropout_rate: float | int
    correlation: Literal["channel", "time", "dense"]
    window_length: int
    num_steps: int
    share_weights: bool
    attention_dim: int
    joint: Literal["concat", "linear"]
    joint_dim: int
    query: Literal["linear", "identity"]
    correlation_dropout_rate: float | int
    remat: bool
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
        """Returns the prediction for every frame; that of frames outside `frame_mask` is void."""
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
            value = norm(value, frame_mask, train=train).astype(self.dtype)
            x[m] = nn.with_logical_constraint(value, ("batch", "frames", "activation_embed"))
        steps = Recursion(
            num_steps=self.num_steps,
            share_weights=self.share_weights,
            remat=self.remat,
            correlation=self.correlation,
            window_length=self.window_length,
            attention_dim=self.attention_dim,
            joint=self.joint,
            joint_dim=self.joint_dim,
            query=self.query,
            dropout_rate=self.correlation_dropout_rate,
            name="recursion",
            **dtypes,
        )(x, frame_mask, deterministic=not train)
        x = self.aggregate(steps, frame_mask, deterministic=not train)
        joint = jnp.concatenate([x[m] for m in self.modalities], axis=-1)
        return TanhHead(self.head_dim, self.dimensions, name="head", **dtypes)(
            joint, frame_mask, train=train
        )

    def aggregate(
        self,
        steps: Mapping[str, Float[Array, "l b t _"]],
        frame_mask: Bool[Array, "b t"],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t _"]]:
        """Returns what the head sees of the recursion's steps X_0 … X_l: here the last one."""
        return {m: value[-1] for m, value in steps.items()}
