"""Per-frame predictions for whole videos: windows through the model, overlaps averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32

from maven_jax.data.pipeline import FrameStore, WindowSource, ordered_batches, to_batch
from maven_jax.data.windows import Windows
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import as_widths, box_filter
from maven_jax.evaluation.overlap import OverlapMean
from maven_jax.progress import meter
from maven_jax.runtime.sharding import gather_rows, place_batch, process_rows, rows_here
from maven_jax.state import Weights
from maven_jax.store.schema import ExtraTarget, VideoEntry


@dataclasses.dataclass
class ExtraTrack:
    """One video's predictions of an extra target beside its annotation.

    Attributes:
        target: whose.
        outputs: (n, k) numbers, or probabilities by label.
        targets: (n, w) of an `ExtraTarget`.
        target_mask: (n,) annotated frames.
    """

    target: ExtraTarget
    outputs: Float32[np.ndarray, "n k"]
    targets: Float32[np.ndarray, "n w"]
    target_mask: Bool[np.ndarray, "n"]


@dataclasses.dataclass
class PredictedVideo:
    """One video's predictions beside its annotation.

    Attributes:
        entry: the video.
        predictions: (n, 2) valence and arousal of every frame.
        targets: (n, 2); 0 where `target_mask` is False.
        target_mask: (n,) annotated frames.
        extra: name -> what is predicted of an extra target.
    """

    entry: VideoEntry
    predictions: Float32[np.ndarray, "n 2"]
    targets: Float32[np.ndarray, "n 2"]
    target_mask: Bool[np.ndarray, "n"]
    extra: dict[str, ExtraTrack] = dataclasses.field(default_factory=dict)


def check_finite(videos: Sequence[PredictedVideo]) -> None:
    """Raises UserError if a prediction is NaN or infinite: no score could tell it from a number."""
    for video in videos:
        bad = np.flatnonzero(~np.isfinite(video.predictions).all(1))
        if len(bad):
            more = f", nor are {len(bad) - 1:,} others" if len(bad) > 1 else ""
            raise UserError(
                f"{video.entry.video}: the prediction of frame {bad[0] + 1} is not a finite "
                f"number{more}; the model's weights or its features are damaged"
            )


class SplitPredictor:
    """Predicts every frame of a split; a frame in several windows gets their mean.

    Args:
        predict_step: (weights, batch) -> (b, t, 2 and the extra targets' outputs); jitted, if
            `compile` is to be called.
        store: the feature store.
        windows: which frames; they have to cover every frame of their videos.
        modalities: which to read.
        single_vector: see `WindowSource`.
        batch_size: rows of the global batch.
        num_threads: threads that read.
        mesh: the device mesh.
        blend: of windows that overlap, see `OverlapMean`.
        smooth_frames: widths of the box filters that smooth valence and arousal at the end, see
            `box_filter`.
        lengths: frames that windows may be padded to, each to the next; the last is the windows'
            own. One program is compiled for each that a window needs.
        extra_targets: those whose outputs `predict_step` gives.

    Raises:
        UserError: a frame is in no window, or a batch size that the mesh cannot divide.
    """

    def __init__(
        self,
        predict_step: Any,
        store: FrameStore,
        windows: Windows,
        *,
        modalities: tuple[str, ...],
        single_vector: dict[str, float | None],
        batch_size: int,
        num_threads: int,
        mesh: Mesh,
        blend: str,
        smooth_frames: tuple[int, int],
        lengths: Sequence[int] = (),
        extra_targets: Mapping[str, ExtraTarget] = MappingProxyType({}),
    ):
        self._smooth_frames = as_widths(smooth_frames, "config.eval.smooth_frames")
        _check_coverage(windows)
        self._blend, self._extra = blend, extra_targets
        self._windows, self._mesh = windows, mesh
        self._rows = process_rows(mesh, batch_size, "eval.batch_size")
        self._batch_size, self._num_threads = batch_size, num_threads
        # For each padded length: the numbers of its windows, the windows, and their program.
        self._parts = [
            (
                numbers,
                WindowSource(store, part, modalities, single_vector, extra_targets),
                predict_step,
            )
            for numbers, part in windows.by_length(lengths or (windows.length,))
        ]

    def compile(self, weights: Weights) -> None:
        """Compiles the prediction step for every shape that batches have: one for each length."""
        for i, (numbers, source, step) in enumerate(self._parts):
            example = place_batch(to_batch(source.read([0] * len(self._rows))), self._mesh)
            self._parts[i] = (numbers, source, step.lower(weights, example).compile())

    def __call__(
        self, weights: Weights, label: str = "", beat: Callable[[], None] = lambda: None
    ) -> list[PredictedVideo]:
        """All videos with their predictions, on every process.

        Args:
            weights: of the model.
            label: with one, progress is shown.
            beat: called once per batch, as often on every process.

        Raises:
            UserError: a prediction is not finite.
        """
        if not label:
            return self._predict(weights, lambda amount: beat())

        with meter(label, len(self._windows), "windows") as m:

            def advance(amount: float | int) -> None:
                beat()
                m.advance(amount)

            return self._predict(weights, advance)

    def _predict(
        self, weights: Weights, advance: Callable[[float | int], None]
    ) -> list[PredictedVideo]:
        entries = self._windows.entries
        means = [OverlapMean(e.num_frames, self._blend) for e in entries]
        targets = [np.zeros((e.num_frames, 2), np.float32) for e in entries]
        masks = [np.zeros(e.num_frames, bool) for e in entries]
        extra = [self._empty_extra(e.num_frames) for e in entries]
        outputs: list[Any] = [None] * len(self._windows)
        for numbers, source, step in self._parts:
            for number, output in zip(numbers, self._outputs(source, step, weights, advance)):
                outputs[number] = output
        # Window by window, so that the sums are the same to the last bit on any mesh.
        for window, i in enumerate(self._windows.video):
            frames, output = self._windows.frames(window), outputs[window]
            count = means[i].add(frames, output[:, :2])
            targets[i][frames], masks[i][frames] = output[:count, 2:4], output[:count, 4] > 0
            at = 5
            for name, target in self._extra.items():
                mean, track = extra[i][name]
                ends = np.cumsum((at, len(target.labels), target.width, 1)).tolist()
                mean.add(frames, output[:, at : ends[1]])
                track.targets[frames] = output[:count, ends[1] : ends[2]]
                track.target_mask[frames] = output[:count, ends[2]] > 0
                at = ends[3]
        videos = [
            PredictedVideo(
                entry,
                box_filter(mean.mean(), self._smooth_frames),
                target,
                mask,
                {
                    name: dataclasses.replace(track, outputs=outputs_mean.mean())
                    for name, (outputs_mean, track) in tracks.items()
                },
            )
            for entry, mean, target, mask, tracks in zip(entries, means, targets, masks, extra)
        ]
        check_finite(videos)
        return videos

    def _empty_extra(self, frames: int) -> dict[str, tuple[OverlapMean, ExtraTrack]]:
        """Extra target -> the mean of its outputs and its annotation, of a video, to be filled."""
        return {
            name: (
                OverlapMean(frames, self._blend, (len(target.labels),)),
                ExtraTrack(
                    target,
                    np.zeros((frames, len(target.labels)), np.float32),
                    np.zeros((frames, target.width), np.float32),
                    np.zeros(frames, bool),
                ),
            )
            for name, target in self._extra.items()
        }

    def _outputs(
        self,
        source: WindowSource,
        step: Any,
        weights: Weights,
        advance: Callable[[float | int], None],
    ) -> Float32[np.ndarray, "n t _"]:
        """For all windows of a source: valence, arousal, their targets, 1 where annotated.

        Behind them the same of each extra target.

        Processes exchange nothing before the end: each keeps its own rows. A batch's output is
        read when the next batch has been sent, so that the device need not wait.
        """
        batches = ordered_batches(
            source,
            batch_size=self._batch_size,
            rows=self._rows,
            num_threads=self._num_threads,
        )
        rows: list[np.ndarray] = []  # a batch's (r, t, 5 or more)
        widths = [2, *(len(target.labels) for target in self._extra.values())]

        def keep(output: jax.Array, item: Mapping[str, Any]) -> None:
            own = [(item["targets"], item["target_mask"])]
            own += [(item["extra_targets"][n], item["extra_masks"][n]) for n in self._extra]
            parts = np.split(rows_here(output), np.cumsum(widths)[:-1], axis=-1)
            columns = [
                (part, targets, mask[..., None].astype(np.float32))
                for part, (targets, mask) in zip(parts, own)
            ]
            rows.append(np.concatenate([x for part in columns for x in part], -1))
            remaining = len(source) - (len(rows) - 1) * self._batch_size
            advance(min(remaining, self._batch_size))

        pending: tuple[jax.Array, Mapping[str, Any]] | None = None
        for item in batches:
            output = step(weights, place_batch(to_batch(item), self._mesh))
            if pending is not None:
                keep(*pending)
            pending = output, item
        if pending is not None:
            keep(*pending)
        whole = gather_rows(np.stack(rows), self._mesh)  # (k, batch_size, t, 5)
        return whole.reshape(-1, *whole.shape[2:])[: len(source)]


def _check_coverage(windows: Windows) -> None:
    for entry, count in zip(windows.entries, windows.coverage()):
        if not count.all():
            raise UserError(
                f"frame {count.argmin()} of {entry.video} is in no window; dense windows predict "
                "every frame at config.eval.hop=1"
            )
