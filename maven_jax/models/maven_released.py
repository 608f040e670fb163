"""MAVEN, as its code was released: a smaller and different network than the paper's."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from maven_jax.encoders.beit import BeitStack
from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.linear import dense
from maven_jax.layers.modalities import EmbedModalities, over_frames
from maven_jax.models.fusion.six_pathway import SixPathwayFusion
from maven_jax.types import Features, ModalityMasks, Prediction


class MavenReleased(nn.Module):
    """Six-pathway attention with one shared LayerNorm, then an MLP, with or without BEiT.

    Parameters correspond one to one to the released PyTorch ones, apart from our embeddings of
    missing frames, which start at zero. The release's mistakes are options, off by default.

    Source: the code released with MAVEN (CVPRW 2025): embed_dim 512, 2 heads, dropout .1, a head
    512 and 256 wide with dropout .5 and .3, BEiT-base.

    Attributes:
        modalities: names, in order; the release's are visual, audio, text.
        variant: "mlp" (the one the authors test): the head sees the fused frames and gives (angle,
            intensity). "beit": two BEiT stacks in parallel on the same projected frames, their
            outputs side by side; the head gives (valence, arousal).
        embed_dim: width of each modality.
        num_heads: of the pathways.
        dropout_rate: of the pathways.
        head_dims: hidden widths of the head.
        head_dropout_rates: after each of them.
        refine_dim: width of the BEiT stacks (768); variant "beit" only, as all below.
        beit_layers: layers of each stack.
        beit_heads: heads of each layer.
        beit_mlp_dim: hidden width of each layer.
        layer_scale_init: BEiT's layer scale.
        remat: recompute BEiT's activations in the backward pass to save memory.
        attend_padding: treat missing and padded frames as observed zeros, which other frames attend
            to: the release's behaviour, to compare with its numbers. Off otherwise.
        dtype: of the matrix products; softmax, norms and outputs are float32.
        param_dtype: of the parameters outside BEiT, whose parameters are float32.
    """

    modalities: tuple[str, ...]
    variant: Literal["mlp", "beit"]
    embed_dim: int
    num_heads: int
    dropout_rate: float | int
    head_dims: tuple[int, ...]
    head_dropout_rates: tuple[float | int, ...]
    refine_dim: int = 768
    beit_layers: int = 12
    beit_heads: int = 12
    beit_mlp_dim: int = 3072
    layer_scale_init: float | int = 0.1
    remat: bool = False
    attend_padding: bool = False
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
        if self.variant not in ("mlp", "beit"):
            raise ValueError(f"variant is {self.variant!r}; choose 'mlp' or 'beit'")
        if self.attend_padding:
            features, modality_masks, frame_mask = _as_observed_zeros(
                features, modality_masks, frame_mask
            )
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        embeddings, masks = EmbedModalities(
            self.modalities, self.embed_dim, name="embed", **dtypes
        )(features, modality_masks, frame_mask)
        enhanced = SixPathwayFusion(
            self.modalities,
            self.num_heads,
            self.dropout_rate,
            shared_norm=True,
            name="fusion",
            **dtypes,
        )(embeddings, masks, deterministic=not train)
        frames = frame_mask.shape[1]
        if self.variant == "beit":
            x = over_frames(enhanced, frames)
            x = dense(self.refine_dim, ("channels", "embed"), name="refine", **dtypes)(x)
            stacks = [
                BeitStack(
                    num_layers=self.beit_layers,
                    num_heads=self.beit_heads,
                    mlp_dim=self.beit_mlp_dim,
                    layer_scale_init=self.layer_scale_init,
                    remat=self.remat,
                    valid_first=True,
                    dtype=self.dtype,
                    name=f"beit_{stack}",
                )(x, frame_mask, deterministic=not train)
                for stack in range(2)
            ]
            x = jnp.concatenate(stacks, axis=-1)
        elif self.head_dims and any(x.shape[1] == frames for x in enhanced.values()):
            x = enhanced  # the head computes once what all frames share
        else:
            # One vector per window for all modalities: the head would not know of the frames.
            x = over_frames(enhanced, frames)
        return RegressionHead(
            self.head_dims,
            self.head_dropout_rates,
            "polar_angle_first" if self.variant == "mlp" else "va",
            name="head",
            **dtypes,
        )(x, deterministic=not train)


def _as_observed_zeros(features, modality_masks, frame_mask):
    """Returns all three with zeros where frames are missing or padded, and nothing masked."""
    zeroed = {}
    for name, raw in features.items():
        observed = modality_masks[name]
        observed = observed & frame_mask if observed.shape == frame_mask.shape else observed
        zeroed[name] = jnp.where(observed[..., None], raw, 0)
    return zeroed, *jax.tree.map(jnp.ones_like, (dict(modality_masks), frame_mask))
