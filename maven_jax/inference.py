"""Per-frame predictions for whole videos: windows through the model, overlaps averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32

from maven_jax.data.pipeline import WindowSource, ordered_batches, to_batch
from maven_jax.data.store import Store, VideoEntry
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.progress import meter
from maven_jax.sharding import gather, place_batch, rows_per_process
from maven_jax.smoothing import box_filter, check_smooth_frames
from maven_jax.state import Weights


@dataclasses.dataclass
class Track:
    """One video's predictions beside its annotation.

    Attributes:
        entry: the video.
        predictions: (n, 2) valence and arousal of every frame.
        targets: (n, 2); 0 where `target_mask` is False.
        target_mask: (n,) annotated frames.
    """

    entry: VideoEntry
    predictions: Float32[np.ndarray, "n 2"]
    targets: Float32[np.ndarray, "n 2"]
    target_mask: Bool[np.ndarray, "n"]


class Predictor:
    """Predicts every frame of a split; a frame in several windows gets their mean.

    Args:
        predict_step: (weights, batch) -> (b, t, 2); jitted, if `compile` is to be called.
        store: the feature store.
        windows: which frames; they have to cover every frame of their videos.
        modalities: which to read.
        single_vector: see `WindowSource`.
        batch_size: rows of the global batch.
        num_threads: threads that read.
        mesh: the device mesh.
        smooth_frames: widths of the box filters that each track of valence and of arousal goes
            through at last, see `box_filter`.

    Raises:
        UserError: a frame is in no window, or a batch size that the mesh cannot divide.
    """

    def __init__(
        self,
        predict_step: Any,
        store: Store,
        windows: Windows,
        *,
        modalities: tuple[str, ...],
        single_vector: dict[str, float | None],
        batch_size: int,
        num_threads: int,
        mesh: Mesh,
        smooth_frames: tuple[int, int],
    ):
        check_smooth_frames(smooth_frames)
        _check_coverage(windows)
        self._smooth_frames = smooth_frames
        self._step, self._store, self._windows, self._mesh = predict_step, store, windows, mesh
        self._rows = rows_per_process(batch_size, mesh, "eval.batch_size")
        self._batch_size, self._num_threads = batch_size, num_threads
        padded = -(-len(windows) // batch_size) * batch_size
        self._source = WindowSource(store, windows, modalities, single_vector, padded)

    def compile(self, weights: Weights) -> None:
        """Compiles the prediction step for the one shape that all batches have."""
        rows = [self._source[0]] * self._rows
        example = to_batch(jax.tree.map(lambda *x: np.stack(x), *rows))
        self._step = self._step.lower(weights, place_batch(example, self._mesh)).compile()

    def __call__(self, weights: Weights, label: str = "") -> list[Track]:
        """The tracks of all videos, on every process; with a `label`, progress is shown."""
        if not label:
            return self._predict(weights, lambda amount: None)
        with meter(label, len(self._windows), "windows") as m:
            return self._predict(weights, m.advance)

    def _predict(self, weights: Weights, advance: Callable[[float], None]) -> list[Track]:
        entries = self._windows.entries
        total = [np.zeros((e.num_frames, 2), np.float64) for e in entries]
        count = [np.zeros(e.num_frames, np.int32) for e in entries]
        targets = [np.zeros((e.num_frames, 2), np.float32) for e in entries]
        masks = [np.zeros(e.num_frames, bool) for e in entries]
        batches = ordered_batches(
            self._source,
            batch_size=self._rows,
            num_threads=self._num_threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        for item in batches:
            batch = place_batch(to_batch(item), self._mesh)
            output = self._step(weights, batch)
            arrays = map(gather, (output, batch.window, batch.targets, batch.target_mask))
            for va, window, target, mask in zip(*arrays):
                if window < 0:
                    continue
                advance(1)
                i = self._windows.video[window]
                frames = self._windows.frames(int(window))
                n = len(count[i][frames])
                total[i][frames] += va[:n]
                count[i][frames] += 1
                targets[i][frames], masks[i][frames] = target[:n], mask[:n]
        tracks = []
        for i, entry in enumerate(entries):
            if not count[i].all():
                raise AssertionError(f"{entry.video}: frame {count[i].argmin()} not predicted")
            mean = (total[i] / count[i][:, None]).astype(np.float32)
            tracks.append(Track(entry, box_filter(mean, self._smooth_frames), targets[i], masks[i]))
        return tracks


def _check_coverage(windows: Windows) -> None:
    for entry, count in zip(windows.entries, windows.coverage()):
        if not count.all():
            raise UserError(
                f"frame {count.argmin()} of {entry.video} is in no window; dense windows predict "
                "every frame at config.eval.hop=1"
            )
