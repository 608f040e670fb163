"""LFAN, the leader-follower attention network (Zhang et al., ABAW2, 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from maven_jax.layers.linear import dense, uniform_by_fan_in
from maven_jax.layers.modalities import observed_frames
from maven_jax.layers.temporal import TemporalKind, TemporalModel, channels_of
from maven_jax.models.fusion.leader_follower import LeaderFollowerAttention
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
        joint = LeaderFollowerAttention(self.leader, self.attention_dim, name="fusion", **dtypes)(
            x, masks
        )
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
        return Prediction(va=output(joint.astype(jnp.float32)))
