"""Baselines that any model has to beat."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.modalities import EmbedModalities, over_frames
from maven_jax.types import Features, ModalityMasks, Prediction


class ConcatMlp(nn.Module):
    """The projected modalities side by side, and an MLP on each frame alone.

    Attributes:
        modalities: names, in order.
        embed_dim: width of each modality.
        hidden_dims: of the MLP.
        dropout_rate: after each of them.
        head: "va" or "polar".
        dtype: of the matrix products; outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    embed_dim: int
    hidden_dims: tuple[int, ...]
    dropout_rate: float | int
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
        embeddings, _ = EmbedModalities(self.modalities, self.embed_dim, name="embed", **dtypes)(
            features, modality_masks, frame_mask
        )
        return RegressionHead(
            self.hidden_dims,
            (self.dropout_rate,) * len(self.hidden_dims),
            self.head,
            name="head",
            **dtypes,
        )(over_frames(embeddings, frame_mask.shape[1]), deterministic=not train)


class ConstantMean(nn.Module):
    """The training set's mean for every frame, which scores a CCC of 0; it has no parameters.

    Attributes:
        modalities: unused; every model has this attribute.
        target_mean: (valence, arousal).
    """

    modalities: tuple[str, ...]
    target_mean: tuple[float, float]

    @nn.compact
    def __call__(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
        *,
        train: bool,
    ) -> Prediction:
        """Returns the mean for every frame."""
        mean = jnp.asarray(self.target_mean, jnp.float32)
        return Prediction(va=jnp.broadcast_to(mean, (*frame_mask.shape, 2)))
