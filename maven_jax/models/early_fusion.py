"""Early fusion: the modalities side by side, one temporal network, a head."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.encoders.beit import BeitStack
from maven_jax.layers.dropout import Dropout
from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.linear import dense
from maven_jax.layers.lstm import Blstm
from maven_jax.layers.mamba import MambaStack
from maven_jax.layers.modalities import EmbedModalities, over_frames
from maven_jax.layers.tcn import CentredTcn
from maven_jax.types import Features, ModalityMasks, Prediction

BLSTM_LAYERS = 1


class EarlyFusion(nn.Module, kw_only=True):
    """What every system with a fusion of its own is compared with.

    Each modality is projected, a learned vector taking the place of frames without it; a dense
    layer mixes the modalities of a frame, a temporal network its neighbours.

    Attributes:
        modalities: names, in order.
        temporal: "tcn" (`CentredTcn`), "blstm", "transformer" (`BeitStack` with a learned bias over
            distances), "mamba" (`MambaStack`) or "none".
        embed_dim: of each modality.
        width: of the temporal network.
        num_layers: of the TCN, the transformer or Mamba; a BLSTM has one.
        kernel_size: taps of the TCN, or of Mamba's convolutions.
        num_heads: of the transformer.
        dropout_rate: of the embeddings and within the temporal network.
        head_dims: hidden widths of the head.
        head_dropout_rate: after each of them.
        head: "va" or "polar".
        dtype: of the matrix products; outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    temporal: Literal["tcn", "blstm", "transformer", "mamba", "none"]
    embed_dim: int
    width: int
    num_layers: int
    kernel_size: int
    num_heads: int
    dropout_rate: float | int
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
        embeddings, _ = EmbedModalities(self.modalities, self.embed_dim, name="embed", **dtypes)(
            features, modality_masks, frame_mask
        )
        x = over_frames(embeddings, frame_mask.shape[1])
        x = Dropout(self.dropout_rate, not train)(x)
        x = dense(self.width, ("embed", "mlp"), name="mix", **dtypes)(x)
        x = self._over_time(x, frame_mask, train)
        head = RegressionHead(
            self.head_dims,
            (self.head_dropout_rate,) * len(self.head_dims),
            self.head,
            name="head",
            **dtypes,
        )
        return head(x, deterministic=not train)

    def _over_time(
        self, x: Float[Array, "b t d"], frame_mask: Bool[Array, "b t"], train: bool
    ) -> Float[Array, "b t d"]:
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.temporal == "tcn":
            model: Any = CentredTcn(
                self.width,
                self.num_layers,
                self.kernel_size,
                self.dropout_rate,
                name="tcn",
                **dtypes,
            )
            return model(x, frame_mask, deterministic=not train)
        if self.temporal == "mamba":
            model = MambaStack(
                self.num_layers, self.kernel_size, self.dropout_rate, name="mamba", **dtypes
            )
            return model(x, frame_mask, deterministic=not train)
        if self.temporal == "blstm":
            model = Blstm(
                self.width // 2, BLSTM_LAYERS, self.dropout_rate, False, name="blstm", **dtypes
            )
            return model(x, frame_mask, deterministic=not train)
        if self.temporal == "transformer":
            model = BeitStack(
                num_layers=self.num_layers,
                num_heads=self.num_heads,
                mlp_dim=2 * self.width,
                layer_scale_init=0.1,
                relative_position="1d",
                dropout_rate=self.dropout_rate,
                valid_first=True,
                dtype=self.dtype,
                name="transformer",
            )
            return model(x, frame_mask, deterministic=not train)
        return x
