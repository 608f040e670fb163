"""RJCA, recursive joint cross-attention with LSTMs (Praveen et al., 2023)."""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from maven_jax.layers.heads import DimensionHeads
from maven_jax.layers.lstm import ResidualBlstm, l2_normalize
from maven_jax.layers.modalities import observed_frames
from maven_jax.models.fusion.audio_guided_pool import AudioGuidedPool, split_positions
from maven_jax.models.fusion.recursion import Recursion
from maven_jax.models.fusion.recursion_config import RecursionConfig
from maven_jax.types import Features, ModalityMasks, Prediction


class Rjca(nn.Module, kw_only=True):
    """A BLSTM per modality, recursive joint correlation, a BLSTM of all of them, two heads.

    The features of modality `pooled` are maps, which are pooled over their positions, guided by
    modality `guide`; all others are vectors. Any number of modalities. BLSTMs hold their states
    over frames that were not observed. Source: RJCA (Praveen et al., 2023); sizes, dropout and the
    place of each norm as in the released code.

    Attributes:
        modalities: names, in order.
        pooled: modality whose features are maps (if it is among the modalities).
        guide: modality that guides the pooling; needed if `positions` > 1.
        positions: of each map, 49 in RJCA; 1 if the features are plain vectors.
        layout: "positions", or "released" for the released weights; see split_positions and
            AudioGuidedPool.
        lstm_dim: width of each modality's BLSTM, and of the pooled map.
        lstm_layers: of all BLSTMs.
        lstm_dropout_rate: of the modalities' BLSTMs.
        recursion_config: see RecursionConfig; recipes have its fields as keys of the model.
        joint_lstm_dim: width of the joint BLSTM.
        joint_lstm_dropout_rate: of the joint BLSTM.
        head_dim: hidden width of each head.
        head_dropout_rate: behind it.
        dtype: of the matrix products; norms and outputs are float32.
        param_dtype: of the parameters.
    """

    modalities: tuple[str, ...]
    pooled: str
    guide: str
    positions: int
    layout: Literal["positions", "released"]
    lstm_dim: int
    lstm_layers: int
    lstm_dropout_rate: float | int
    recursion_config: RecursionConfig
    joint_lstm_dim: int
    joint_lstm_dropout_rate: float | int
    head_dim: int
    head_dropout_rate: float | int
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
        """Returns the prediction for every frame; frames outside `frame_mask` hold anything.

        Raises:
            ValueError: maps of several positions without their guide, or of another width.
        """
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        frames, masks = observed_frames(self.modalities, features, modality_masks, frame_mask)
        x = self._unimodal(frames, masks, deterministic=not train)
        steps = Recursion(self.recursion_config, name="recursion", **dtypes)(
            x, frame_mask, deterministic=not train
        )
        joint = ResidualBlstm(
            self.joint_lstm_dim,
            self.lstm_layers,
            self.joint_lstm_dropout_rate,
            learned_initial_state=True,
            name="joint",
            **dtypes,
        )(
            jnp.concatenate([steps[m][-1] for m in self.modalities], axis=-1),
            frame_mask,
            deterministic=not train,
        )
        return DimensionHeads((self.head_dim,), (self.head_dropout_rate,), name="head", **dtypes)(
            joint, deterministic=not train
        )

    def _unimodal(
        self,
        frames: dict[str, Float[Array, "b t _"]],
        masks: dict[str, Bool[Array, "b t"]],
        *,
        deterministic: bool,
    ) -> dict[str, Float[Array, "b t d"]]:
        """Returns each modality's own representation, in the order of the modalities."""
        dtypes: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = {}
        # The guide goes before what it guides.
        for m in sorted(self.modalities, key=lambda m: m == self.pooled):
            value = l2_normalize(frames[m].astype(jnp.float32))
            if m == self.pooled:  # the whole map is of length one
                value = AudioGuidedPool(self.lstm_dim, self.layout, name="pool", **dtypes)(
                    split_positions(value, self.positions, self.layout), x.get(self.guide)
                )
            x[m] = ResidualBlstm(
                self.lstm_dim,
                self.lstm_layers,
                self.lstm_dropout_rate,
                learned_initial_state=True,
                name=f"unimodal_{m}",
                **dtypes,
            )(value, masks[m], deterministic=deterministic)
        return {m: x[m] for m in self.modalities}
