"""From raw features of any width to embeddings, with missing frames made harmless."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.linear import XAVIER, dense
from maven_jax.types import Features, ModalityMasks


class EmbedModalities(nn.Module):
    """Projects each modality to a common width.

    A frame that was not observed, or that lies behind the end of its video, gets a learned
    embedding (zero at the start) instead. Its features, even NaN, reach neither outputs nor
    gradients.

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


class DenseOverModalities(nn.Module):
    """A linear layer over modalities side by side that computes once per window what it can.

    W [x; y; z] = W_x x + (W_y y + W_z z). The bracket, of modalities with one vector per window, is
    the same for all frames, and so is its part of the kernel's gradient. Parameters are those of
    `dense` over `over_frames`.

    Attributes:
        features: width of the result.
        axes: logical names of the kernel's axes.
        dtype: of the matrix products and of the result.
        param_dtype: of the parameters.
    """

    features: int
    axes: tuple[str | None, str | None]
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, parts: dict[str, Float[Array, "b _ d"]], num_frames: int
    ) -> Float[Array, "b t {self.features}"]:
        """Returns the layer's output for every frame; parts have `num_frames` frames or one."""
        widths = [part.shape[-1] for part in parts.values()]
        kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(XAVIER, self.axes),
            (sum(widths), self.features),
            self.param_dtype,
        )
        bias = self.param(
            "bias",
            nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[1:]),
            (self.features,),
            self.param_dtype,
        )
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        if len({part.shape[1] for part in parts.values()}) == 1:
            frames = next(iter(parts.values())).shape[1]
            total = over_frames(parts, frames).astype(self.dtype) @ kernel + bias
        else:
            ends = np.cumsum(widths)[:-1].tolist()
            # Single vectors first: they are added up before anything has t frames.
            pairs = sorted(
                zip(parts.values(), jnp.split(kernel, ends)), key=lambda pair: pair[0].shape[1]
            )
            total = bias
            for part, rows in pairs:
                total = part.astype(self.dtype) @ rows + total
        return jnp.broadcast_to(total, (total.shape[0], num_frames, self.features))


def observed_frames(
    modalities: Sequence[str],
    features: Features,
    modality_masks: ModalityMasks,
    frame_mask: Bool[Array, "b t"],
) -> tuple[dict[str, Float[Array, "b t _"]], dict[str, Bool[Array, "b t"]]]:
    """Returns (frames, masks) by modality, zeros where nothing was observed or the video has ended.

    A single vector per window is repeated over its frames.

    Raises:
        ValueError: a modality is absent from the batch, or has neither t frames nor one.
    """
    frames, masks = {}, {}
    shape = frame_mask.shape
    for name in modalities:
        if name not in features or name not in modality_masks:
            raise ValueError(
                f"the batch has no modality {name!r}; it has {', '.join(sorted(features))}"
            )
        raw, mask = features[name], modality_masks[name]
        if raw.shape[1] not in (1, shape[1]) or mask.shape != raw.shape[:2]:
            raise ValueError(
                f"modality {name!r}: features {raw.shape} and mask {mask.shape} do not fit "
                f"{shape[1]} frames: both need {shape[1]} frames, or one vector per window"
            )
        mask = jnp.broadcast_to(mask, shape) & frame_mask
        raw = jnp.broadcast_to(raw, (*shape, raw.shape[-1]))
        frames[name], masks[name] = jnp.where(mask[..., None], raw, 0), mask
    return frames, masks
