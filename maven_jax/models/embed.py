"""From raw features of any width to embeddings, with missing frames made harmless."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.models.layers import dense
from maven_jax.types import Features, ModalityMasks


class EmbedModalities(nn.Module):
    """Projects each modality to a common width.

    A frame that was not observed, or that lies behind the end of its video, gets a learned
    embedding (zero at the start) instead: whatever its features hold, NaN included, reaches neither
    outputs nor gradients.

    Attributes:
        modalities: names, in the order in which models concatenate them.
        embed_dim: d.
        dtype: of the projection.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    embed_dim: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
    ) -> tuple[dict[str, Float[Array, "b _ d"]], dict[str, Bool[Array, "b _"]]]:
        """Returns (embeddings, masks): (b, s, d) and (b, s) by modality, s being t or 1.

        Raises:
            ValueError: a modality is absent from the batch, or has neither t frames nor one.
        """
        embeddings, masks = {}, {}
        frames = frame_mask.shape[1]
        for name in self.modalities:
            if name not in features or name not in modality_masks:
                raise ValueError(
                    f"the batch has no modality {name!r}; it has {', '.join(sorted(features))}"
                )
            raw, mask = features[name], modality_masks[name]
            if raw.shape[1] not in (1, frames) or mask.shape != raw.shape[:2]:
                raise ValueError(
                    f"modality {name!r}: features {raw.shape} and mask {mask.shape} do not fit "
                    f"{frames} frames: both need {frames} frames, or one vector per window"
                )
            # One vector stands for a whole window: the end of the video does not mask it.
            mask = mask & frame_mask if raw.shape[1] == frames else mask
            raw = jnp.where(mask[..., None], raw, 0).astype(self.dtype)
            project = dense(
                self.embed_dim,
                ("channels", "embed"),
                name=f"project_{name}",
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )
            missing = self.param(
                f"missing_{name}",
                nn.with_logical_partitioning(nn.initializers.zeros_init(), ("embed",)),
                (self.embed_dim,),
                self.param_dtype,
            )
            embedded = jnp.where(mask[..., None], project(raw), missing.astype(self.dtype))
            embeddings[name] = nn.with_logical_constraint(
                embedded, ("batch", "frames", "activation_embed")
            )
            masks[name] = mask
        return embeddings, masks


def over_frames(
    embeddings: dict[str, Float[Array, "b _ d"]], num_frames: int
) -> Float[Array, "b t dm"]:
    """Returns the modalities side by side for every frame; single vectors are repeated."""
    rows = [
        jnp.broadcast_to(value, (value.shape[0], num_frames, value.shape[2]))
        for value in embeddings.values()
    ]
    return jnp.concatenate(rows, axis=-1)
