"""LFAN, the leader-follower attention network (Zhang et al., ABAW2, 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.batch_norm import MaskedBatchNorm
from maven_jax.layers.linear import dense, uniform_by_fan_in
from maven_jax.layers.modalities import observed_frames
from maven_jax.layers.temporal import TemporalKind, TemporalModel, channels_of
from maven_jax.models.fusion.leader_follower import (
    LeaderFollowerAttention,
    MultiHeadLeaderFollower,
)
from maven_jax.types import Features, ModalityMasks, Prediction


class Lfan(nn.Module, kw_only=True):
    """A temporal model per modality, leader-follower attention, one linear layer.

    Source: Zhang et al. (ABAW2, 2021), as RJCMA's repository has it: a TCN each, the face leads.

    Attributes:
        modalities: names, in order.
        temporal: see TemporalModel.
        channels: modality (or "*" for all others) -> width of each level of its temporal model.
        kernel_size: taps of the TCN.
        temporal_dropout_rate: of the temporal models.
        leader: modality that leads.
        attention_dim: width of queries, keys and values.
        dtype: of the matrix products; norms and outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    temporal: TemporalKind
    channels: Mapping[str, tuple[int, ...]]
    kernel_size: int
    temporal_dropout_rate: float | int
    leader: str
    attention_dim: int
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
        x = {
            m: TemporalModel(
                self.temporal,
                channels_of(self.channels, m),
                self.kernel_size,
                self.temporal_dropout_rate,
                name=f"temporal_{m}",
                **dtypes,
            )(frames[m], masks[m], deterministic=not train)
            for m in self.modalities
        }
        joint = self.fuse(x, masks, frame_mask, train)
        start = uniform_by_fan_in(joint.shape[-1])
        output = dense(
            2,
            ("embed", None),
            name="output",
            kernel_init=start,
            bias_init=start,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
        )
        va = self.finish(output(joint.astype(jnp.float32)))
        return Prediction(va=va, hidden=joint)

    def fuse(
        self,
        x: dict[str, Float[Array, "b t _"]],
        masks: dict[str, Bool[Array, "b t"]],
        frame_mask: Bool[Array, "b t"],
        train: bool,
    ) -> Float[Array, "b t d"]:
        """Returns the leader beside the followers."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return LeaderFollowerAttention(self.leader, self.attention_dim, name="fusion", **dtypes)(
            x, masks
        )

    def finish(self, va: Float[Array, "b t 2"]) -> Float[Array, "b t 2"]:
        """Returns the predictions, of what the last layer gives: that itself."""
        return va


class LfanAbaw3(Lfan, kw_only=True):
    """LFAN as its authors had it a year later (Zhang et al., ABAW3, 2022).

    BatchNorm behind each temporal model, attention with heads and an output layer
    (MultiHeadLeaderFollower), tanh behind the last layer. RJCMA's repository grew from this one.

    Attributes:
        num_heads: of the attention; 2 in the release.
        dropout_rate: behind its output layer; 0.1 in the release.
        The others are those of Lfan.
    """

    num_heads: int
    dropout_rate: float | int

    def fuse(
        self,
        x: dict[str, Float[Array, "b t _"]],
        masks: dict[str, Bool[Array, "b t"]],
        frame_mask: Bool[Array, "b t"],
        train: bool,
    ) -> Float[Array, "b t d"]:
        """Returns the leader beside the followers."""
        x = {
            m: MaskedBatchNorm(param_dtype=self.param_dtype, name=f"norm_{m}")(
                value, frame_mask, train=train
            ).astype(self.dtype)
            for m, value in x.items()
        }
        fusion = MultiHeadLeaderFollower(
            self.leader,
            self.attention_dim,
            self.num_heads,
            self.dropout_rate,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="fusion",
        )
        return fusion(x, masks, deterministic=not train)

    def finish(self, va: Float[Array, "b t 2"]) -> Float[Array, "b t 2"]:
        """Returns the predictions, within (-1, 1)."""
        return jnp.tanh(va)
