"""After RAS (10th ABAW, 2026, first place): a temporal network per modality, then trust or experts.

The ideas are those of its paper and public code; sizes and formulas are ours where our features are
others. What RAS has and this has not: docs/ras.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.encoders.beit import BeitStack
from maven_jax.errors import UserError
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.mamba import MambaStack
from maven_jax.layers.modalities import EmbedModalities
from maven_jax.models.fusion.directed_experts import DirectedExperts
from maven_jax.models.fusion.reliability import ReliabilityFusion
from maven_jax.types import Features, ModalityMasks, Prediction

TEMPORAL = ("transformer", "mamba", "none")


class Ras(nn.Module, kw_only=True):
    """A transformer or Mamba over each modality's frames, reliability-aware fusion, a head.

    Attributes:
        modalities: names, in order.
        temporal: modality (or "*" for all others) -> "transformer" (`BeitStack` with a learned bias
            over distances), "mamba" (`MambaStack`) or "none".
        num_layers: modality (or "*") -> layers of its temporal network.
        embed_dim: of each modality.
        num_heads: of the transformers.
        kernel_size: taps of Mamba's convolutions.
        dropout_rate: of embeddings, temporal networks and experts.
        gated_by: modality -> another one, where that was not observed this one counts as not
            observed either: sound by words, or by a mouth that is seen to be open.
        experts: directed experts before the fusion (see DirectedExperts).
        expert_dim: inner width of an expert.
        head_dims: hidden widths of the head.
        head_dropout_rate: after each of them.
        head: "va" or "polar".
        dtype: of the matrix products; outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    temporal: Mapping[str, str]
    num_layers: Mapping[str, int]
    embed_dim: int
    num_heads: int
    kernel_size: int
    dropout_rate: float | int
    gated_by: Mapping[str, str]
    experts: bool
    expert_dim: int
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
        embeddings, masks = EmbedModalities(
            self.modalities, self.embed_dim, name="embed", **dtypes
        )(features, self._gated(modality_masks), frame_mask)
        shape = (*frame_mask.shape, self.embed_dim)
        x = {
            m: self._over_time(m, jnp.broadcast_to(embeddings[m], shape), frame_mask, train)
            for m in self.modalities
        }
        masks = {m: jnp.broadcast_to(masks[m], frame_mask.shape) for m in self.modalities}
        if self.experts:
            x = DirectedExperts(self.expert_dim, self.dropout_rate, name="experts", **dtypes)(
                x, masks, deterministic=not train
            )
        fused = ReliabilityFusion(name="fusion", **dtypes)(x, masks)
        head = RegressionHead(
            self.head_dims,
            (self.head_dropout_rate,) * len(self.head_dims),
            self.head,
            name="head",
            **dtypes,
        )
        return head(fused, deterministic=not train)

    def _gated(self, masks: ModalityMasks) -> ModalityMasks:
        """Returns the masks, those of gated modalities narrowed to where their gates are open."""
        narrowed = dict(masks)
        for m, gate in self.gated_by.items():
            for name in (m, gate):
                if name not in self.modalities:
                    raise UserError(
                        f"gated_by: {name!r} is not among the modalities "
                        f"{', '.join(self.modalities)}"
                    )
            narrowed[m] = masks[m] & masks[gate]
        return narrowed

    def _of(self, key: str, table: Mapping[str, Any], m: str) -> Any:
        if m not in table and "*" not in table:
            raise UserError(f"{key}: nothing for modality {m!r} (or '*' for all others)")
        return table.get(m, table.get("*"))

    def _over_time(
        self, m: str, x: Float[Array, "b t d"], frame_mask: Bool[Array, "b t"], train: bool
    ) -> Float[Array, "b t d"]:
        kind = self._of("temporal", self.temporal, m)
        num_layers = self._of("num_layers", self.num_layers, m)
        if kind not in TEMPORAL:
            raise UserError(f"temporal.{m}={kind!r} is none of {', '.join(TEMPORAL)}")
        x = Dropout(self.dropout_rate, not train)(x)
        if kind == "transformer":
            model: Any = BeitStack(
                num_layers=num_layers,
                num_heads=self.num_heads,
                mlp_dim=2 * self.embed_dim,
                layer_scale_init=0.1,
                relative_position="1d",
                dropout_rate=self.dropout_rate,
                valid_first=True,
                dtype=self.dtype,
                name=f"transformer_{m}",
            )
        elif kind == "mamba":
            model = MambaStack(
                num_layers,
                self.kernel_size,
                self.dropout_rate,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"mamba_{m}",
            )
        else:
            return jnp.where(frame_mask[..., None], x, 0)
        return model(x, frame_mask, deterministic=not train)
