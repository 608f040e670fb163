"""Ridge regression on features averaged over boxes of time: what any network has to beat."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from maven_jax.layers.context import box_average
from maven_jax.layers.modalities import observed_frames
from maven_jax.types import Features, ModalityMasks, Prediction


class Ridge(nn.Module):
    """A linear map of each modality's features, averaged over boxes of several widths.

    `training.closed_form` finds its parameters without steps (`optimizer.name="closed_form"`); it
    can be trained by gradients as well.

    Attributes:
        modalities: names, in order.
        widths: of the boxes in frames; see `box_average`.
        target_mean: (valence, arousal), where the bias begins.
    """

    modalities: tuple[str, ...]
    widths: tuple[int, ...]
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
        """Returns the prediction for every frame; frames outside `frame_mask` hold anything."""
        x = self.design(features, modality_masks, frame_mask)
        zeros = nn.initializers.zeros_init()
        kernel = self.param("kernel", zeros, (x.shape[-1], 2))
        mean = jnp.asarray(self.target_mean, jnp.float32)
        bias = self.param("bias", lambda _: mean)
        return Prediction(va=jnp.einsum("btd,dk->btk", x, kernel, precision="highest") + bias)

    def design(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
    ) -> Float[Array, "b t d"]:
        """Returns the regressors: modality by modality, width by width, channel by channel."""
        frames, masks = observed_frames(self.modalities, features, modality_masks, frame_mask)
        return jnp.concatenate(
            [box_average(frames[m], masks[m], w) for m in self.modalities for w in self.widths], -1
        ).astype(jnp.float32)
