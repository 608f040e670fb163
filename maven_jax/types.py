"""The data that models, losses and metrics exchange.

One glossary for shapes: b windows, t frames, s context frames of a modality (t, or 1 for a
single vector per window), c raw channels of a modality, d embedding, h heads, m modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import no_type_check

from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

# The columns of predictions and targets.
VALENCE, AROUSAL = 0, 1
DIMENSIONS = ("valence", "arousal")

# Modality name -> features, in the fixed order of the config. Pixels come as uint8 and stay so up
# to the encoder that takes them.
Features = Mapping[str, Float[Array, "b _ _"] | UInt8[Array, "b _ _"]]
ModalityMasks = Mapping[str, Bool[Array, "b _"]]


# `no_type_check`: JAX rebuilds these trees with shapes, shardings or None in place of arrays, so
# the annotations cannot be enforced in the constructors. The same in state.py, data/transforms.py.


@no_type_check
@struct.dataclass
class Batch:
    """A batch of windows.

    Attributes:
        features: modality -> (b, s, c), float or uint8; s is t, or 1 for one vector per window.
        modality_masks: modality -> (b, s); False where nothing was observed.
        frame_mask: (b, t); False for padding behind the end of a short video.
        targets: (b, t, 2) valence and arousal in [-1, 1]; 0 where `target_mask` is False.
        target_mask: (b, t); False for frames without annotation and for padding.
        window: (b,) position in the split's list of windows; -1 for a padded row.
        extra_targets: name -> (b, t, w), see `store.schema.ExtraTarget`: a number, the number of a
            class, or 0 and 1; -1 where one of several labels is not annotated.
        extra_masks: name -> (b, t); False for frames without annotation and for padding.
    """

    features: dict[str, Float[Array, "b _ _"] | UInt8[Array, "b _ _"]]
    modality_masks: dict[str, Bool[Array, "b _"]]
    frame_mask: Bool[Array, "b t"]
    targets: Float[Array, "b t 2"]
    target_mask: Bool[Array, "b t"]
    window: Int[Array, "b"]
    extra_targets: dict[str, Float[Array, "b t _"]] = struct.field(default_factory=dict)
    extra_masks: dict[str, Bool[Array, "b t"]] = struct.field(default_factory=dict)


@no_type_check
@struct.dataclass
class Prediction:
    """What a model returns.

    Attributes:
        va: (b, t, 2) valence and arousal.
        polar: (b, t, 2) the head's own (intensity, angle in radians), for heads that are polar.
        hidden: (b, t or 1, d) what the head made its prediction of; None for models without head.
        extra: name -> (b, t, k) what is predicted of each extra target: numbers, or logits.
    """

    va: Float[Array, "b t 2"]
    polar: Float[Array, "b t 2"] | None = None
    hidden: Float[Array, "b _ d"] | None = None
    extra: dict[str, Float[Array, "b t _"]] = struct.field(default_factory=dict)
