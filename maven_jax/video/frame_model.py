"""What a `VideoPredictor` asks of a model: values for every frame, from features that stream by."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from maven_jax.evaluation.calibration import Calibration
from maven_jax.store.schema import ExtraTarget, VideoEntry
from maven_jax.video.live_frames import LiveFrames


@runtime_checkable
class FrameModel(Protocol):
    """A trained model, or published ones side by side."""

    @property
    def source(self) -> Any:
        """Where it came from, for messages."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that it takes, in its order."""
        ...

    @property
    def label(self) -> str:
        """Why its numbers mean nothing, or little; "" for any other model."""
        ...

    @property
    def published(self) -> tuple[dict[str, str], ...]:
        """Title, training data and licence of published models that were not trained for this."""
        ...

    @property
    def face_margin(self) -> float | int | None:
        """What crops of faces show around the box; None for aligned ones (`cut_faces`)."""
        ...

    @property
    def face_detectors(self) -> tuple[str, ...]:
        """Those that cut the crops of its training; empty where that is not known."""
        ...

    def smooth_frames(self, fps: float | int) -> tuple[int, int] | None:
        """Widths of the box filters that belong to it; None for none."""
        ...

    def tuned(self) -> Calibration | None:
        """The calibration that was chosen for it."""
        ...

    @property
    def extra_targets(self) -> tuple[ExtraTarget, ...]:
        """What it predicts beside valence and arousal."""
        ...

    def outputs(
        self, frames: LiveFrames, entry: VideoEntry, ways: bool, label: str
    ) -> Float32[np.ndarray, "n k _"]:
        """Every frame's prediction: with everything (k = 0) and, if `ways`, without each of the
        modalities. Behind valence and arousal are the outputs for `extra_targets`.
        """
        ...
