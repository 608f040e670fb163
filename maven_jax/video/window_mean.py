"""A trained model over the windows of one video: overlaps averaged, with and without modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from maven_jax import recipes
from maven_jax.data.pipeline import FrameStore, WindowSource, to_batch
from maven_jax.data.windows import make_windows
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Calibration
from maven_jax.evaluation.overlap import OverlapMean
from maven_jax.progress import meter
from maven_jax.runs.trained_model import TrainedModel
from maven_jax.state import Weights
from maven_jax.store.schema import ExtraTarget, VideoEntry
from maven_jax.types import Batch


class WindowedModel:
    """Predicts every frame of a video in the windows that evaluation cuts, one video at a time."""

    def __init__(self, model: TrainedModel):
        self.model = self._model = model
        self._modalities = tuple(model.trained_on.modalities)
        self._weights: Weights = jax.device_put(model.weights)
        self._steps: dict[bool, Callable[[Weights, Batch], Array]] = {}

    @property
    def source(self) -> Path:
        """The workdir or bundle."""
        return self._model.source

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the model takes, in its order."""
        return self._modalities

    @property
    def label(self) -> str:
        """Why its numbers mean nothing, if they do."""
        return self._model.label

    @property
    def published(self) -> tuple[dict[str, str], ...]:
        """None: it was trained for this."""
        return ()

    @property
    def face_margin(self) -> None:
        """Crops are aligned, as those of its training."""
        return

    @property
    def face_detectors(self) -> tuple[str, ...]:
        """Those that cut the crops of its training, if its store said."""
        return self._model.trained_on.face_detectors

    @property
    def extra_targets(self) -> tuple[ExtraTarget, ...]:
        """Those of its recipe."""
        return self._model.extra_targets

    def smooth_frames(self, fps: float | int) -> tuple[int, int] | None:
        """The box filters that its recipe evaluates with."""
        valence, arousal = self._model.config.eval.smooth_frames
        return (valence, arousal) if valence or arousal else None

    def tuned(self) -> Calibration | None:
        """What `maven-jax tune` chose."""
        return self._model.tuned()

    def outputs(
        self, frames: FrameStore, entry: VideoEntry, ways: bool, label: str
    ) -> Float32[np.ndarray, "n k _"]:
        """Every frame's prediction, the mean over its windows; see `FrameModel`."""
        config = self._model.config
        section = recipes.plain(config.data.window)
        section["hop"] = config.eval.hop
        windows = recipes.call(make_windows, section, "data.window", entries=(entry,))
        source = WindowSource(frames, windows, self._modalities, dict(config.data.single_vector))
        size = config.eval.batch_size
        shape = (1 + len(self._modalities) * ways, len(self._model.outputs))
        mean = OverlapMean(entry.num_frames, config.eval.blend, shape)
        done = 0
        with meter(label, entry.num_frames, "frames") as m:
            for first, outputs in self._batches(source, size, ways):
                for window, values in enumerate(outputs, first):
                    rows = windows.frames(window)
                    mean.add(rows, values)
                    m.advance(max(rows.stop - done, 0))
                    done = max(done, rows.stop)
        if mean.uncovered is not None:
            raise UserError(
                f"{self._model.source}: windows at config.eval.hop={config.eval.hop} leave frames "
                "out; train with a hop that covers them"
            )
        return mean.mean()

    def _batches(
        self, source: WindowSource, size: int, ways: bool
    ) -> Iterator[tuple[int, Float32[np.ndarray, "b t k _"]]]:
        """Number of the first window and outputs, batch by batch, one ahead on the device."""
        step = self._step(ways)
        pending: tuple[int, Array] | None = None
        for first in range(0, len(source), size):
            batch = to_batch(source.read(range(first, first + size)))
            output = first, step(self._weights, batch)
            if pending is not None:
                yield pending[0], np.asarray(pending[1])
            pending = output
        if pending is not None:
            yield pending[0], np.asarray(pending[1])[: len(source) - pending[0]]

    def _step(self, ways: bool) -> Callable[[Weights, Batch], Array]:
        """(weights, batch) -> (b, t, k, outputs), compiled at the first batch."""
        if ways not in self._steps:
            function, names = self._model.function(), self._modalities if ways else ()

            def step(weights: Weights, batch: Batch) -> Float[Array, "b t k _"]:
                hidden = [_without(batch, name) for name in names]
                return jnp.stack([function(weights, b) for b in (batch, *hidden)], axis=2)

            self._steps[ways] = jax.jit(step)
        return self._steps[ways]


def _without(batch: Batch, name: str) -> Batch:
    hidden = {name: jnp.zeros_like(batch.modality_masks[name])}
    return batch.replace(modality_masks={**batch.modality_masks, **hidden})
