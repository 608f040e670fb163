"""Late fusion: a network for each modality, and the mean of their predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.modalities import observed_frames
from maven_jax.layers.temporal import TemporalKind, TemporalModel, channels_of
from maven_jax.types import Features, ModalityMasks, Prediction


class LateFusion(nn.Module, kw_only=True):
    """A temporal model and a head per modality; what they predict is averaged.

    At each frame the mean is over the modalities observed there. Where none was, it is over all of
    them: their temporal models still see the frames around.

    Attributes:
        modalities: names, in order.
        temporal: see TemporalModel.
        channels: modality (or "*" for all others) -> width of each level of its temporal model.
        kernel_size: taps of the TCN.
        temporal_dropout_rate: of the temporal models.
        head_dims: hidden widths of each head.
        head_dropout_rate: after each of them.
        head: "va" or "polar".
        dtype: of the matrix products; outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    temporal: TemporalKind
    channels: Mapping[str, tuple[int, ...]]
    kernel_size: int
    temporal_dropout_rate: float | int
    head_dims: tuple[int, ...]
    head_dropout_rate: float | int
    head: Literal["polar", "va"]
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
        predictions, hidden = [], []
        for m in self.modalities:
            x = TemporalModel(
                self.temporal,
                channels_of(self.channels, m),
                self.kernel_size,
                self.temporal_dropout_rate,
                name=f"temporal_{m}",
                **dtypes,
            )(frames[m], masks[m], deterministic=not train)
            head = RegressionHead(
                self.head_dims,
                (self.head_dropout_rate,) * len(self.head_dims),
                self.head,
                name=f"head_{m}",
                **dtypes,
            )
            prediction = head(x, deterministic=not train)
            predictions.append(prediction.va)
            hidden.append(prediction.hidden)
        observed = jnp.stack([masks[m] for m in self.modalities])  # (m, b, t)
        weights = jnp.where(observed.any(axis=0), observed, True)[..., None]
        total = jnp.where(weights, jnp.stack(predictions), 0).sum(axis=0)
        return Prediction(va=total / weights.sum(axis=0), hidden=jnp.concatenate(hidden, axis=-1))
