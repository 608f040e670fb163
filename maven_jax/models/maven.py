"""MAVEN, as its paper describes it (CVPRW 2025)."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool

from maven_jax.encoders.beit import BeitStack
from maven_jax.layers.attention import MultiHeadAttention
from maven_jax.layers.heads import RegressionHead, masked_mean_over_frames, repeat_over_frames
from maven_jax.layers.linear import LayerNorm, dense
from maven_jax.layers.modalities import EmbedModalities, over_frames
from maven_jax.models.fusion.six_pathway import SixPathwayFusion
from maven_jax.types import Features, ModalityMasks, Prediction


class Maven(nn.Module):
    """Six-pathway cross-modal attention, self-attention refinement, BEiT stacks in series, head.

    Any modalities, of any widths; each with one feature vector per frame, or a single one per
    window, which is repeated only when the modalities are put side by side. Source: MAVEN (CVPRW
    2025). Recipes deviate in one point, because frames are scored: `readout` is "frame".

    Attributes:
        modalities: names, in order.
        embed_dim: width of each modality.
        num_heads: of the pathways and of the self-attention.
        dropout_rate: of the pathways and of the self-attention.
        shared_norm: one LayerNorm behind the pathways of all modalities, or one each.
        refine_dim: width of the BEiT stacks.
        num_stacks: BEiT stacks in series.
        beit_layers: layers of each.
        beit_heads: heads of each layer.
        beit_mlp_dim: hidden width of each layer.
        layer_scale_init: BEiT's layer scale.
        relative_position: None, or "1d" for a learned bias by distance in frames.
        beit_dropout_rate: of BEiT's hidden states.
        stochastic_depth_rate: of BEiT's last layer, growing from 0.
        remat: recompute BEiT's activations in the backward pass to save memory.
        head_dims: hidden widths of the head.
        head_dropout_rate: after each of them.
        head: "polar" (intensity and angle) or "va".
        readout: "frame": a prediction per frame. "pooled": the mean over valid frames goes through
            the head, and each frame of the window gets that prediction.
        dtype: of the matrix products; softmax, norms and outputs are float32.
        param_dtype: of the parameters outside BEiT, whose parameters are float32.
    """

    modalities: tuple[str, ...]
    embed_dim: int
    num_heads: int
    dropout_rate: float | int
    shared_norm: bool
    refine_dim: int
    num_stacks: int
    beit_layers: int
    beit_heads: int
    beit_mlp_dim: int
    layer_scale_init: float | int
    relative_position: Literal["1d"] | None
    beit_dropout_rate: float | int
    stochastic_depth_rate: float | int
    remat: bool
    head_dims: tuple[int, ...]
    head_dropout_rate: float | int
    head: Literal["polar", "va"]
    readout: Literal["frame", "pooled"]
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
        if self.readout not in ("frame", "pooled"):
            raise ValueError(f"readout is {self.readout!r}; choose 'frame' or 'pooled'")
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        embeddings, masks = EmbedModalities(
            self.modalities, self.embed_dim, name="embed", **dtypes
        )(features, modality_masks, frame_mask)
        enhanced = SixPathwayFusion(
            self.modalities,
            self.num_heads,
            self.dropout_rate,
            self.shared_norm,
            name="fusion",
            **dtypes,
        )(embeddings, masks, deterministic=not train)
        refined = {}
        for m in self.modalities:
            attend = MultiHeadAttention(
                self.num_heads,
                self.dropout_rate,
                name=f"self_attention_{m}",
                **dtypes,
            )
            norm = LayerNorm(param_dtype=self.param_dtype, name=f"self_norm_{m}")
            value = enhanced[m].astype(jnp.float32)
            value = norm(
                attend(enhanced[m], enhanced[m], masks[m], deterministic=not train) + value
            )
            refined[m] = value.astype(self.dtype)

        x = over_frames(refined, frame_mask.shape[1])
        x = dense(self.refine_dim, ("channels", "embed"), name="refine", **dtypes)(x)
        x = nn.with_logical_constraint(x, ("batch", "frames", "activation_embed"))
        for stack in range(self.num_stacks):
            x = BeitStack(
                num_layers=self.beit_layers,
                num_heads=self.beit_heads,
                mlp_dim=self.beit_mlp_dim,
                layer_scale_init=self.layer_scale_init,
                relative_position=self.relative_position,
                dropout_rate=self.beit_dropout_rate,
                stochastic_depth_rate=self.stochastic_depth_rate,
                remat=self.remat,
                valid_first=True,
                dtype=self.dtype,
                name=f"beit_{stack}",
            )(x, frame_mask, deterministic=not train)
        head = RegressionHead(
            self.head_dims,
            (self.head_dropout_rate,) * len(self.head_dims),
            self.head,
            name="head",
            **dtypes,
        )
        if self.readout == "frame":
            return head(x, deterministic=not train)
        pooled = masked_mean_over_frames(x, frame_mask)
        return repeat_over_frames(head(pooled, deterministic=not train), frame_mask.shape[1])
