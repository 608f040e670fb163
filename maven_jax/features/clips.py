"""Face crops to one feature per frame by way of short clips: R(2+1)D (RJCA) and VideoMAE.

The clip of a frame is `clip_frames` crops, `step_s` apart in time; the last one is the frame's own.
Every crop is decoded once and kept as long as a clip may need it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.features.crop_stream import CropFolder, decoded
from maven_jax.features.device import Clock, DeviceFunction, buckets
from maven_jax.features.model_files import identity, open_encoder
from maven_jax.features.per_frame import in_batches, on_frames, run_ahead
from maven_jax.features.visual import normalised, resized


def nearest_frames(times_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """The frame nearest in time to each of `at_s` (n,), the earlier one of two: (n,) int."""
    right = np.clip(np.searchsorted(times_s, at_s, side="left"), 1, max(len(times_s) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(times_s) - 1)
    nearer = (times_s[right] - at_s) < (at_s - times_s[left])
    return np.where(nearer, right, left)


def clips_of(
    images: Iterable[tuple[int, np.ndarray]],
    times_s: np.ndarray,
    clip_frames: int,
    step_s: float,
) -> Iterator[tuple[int, np.ndarray]]:
    """The clips of all frames that have a crop, in order.

    Each moment of a clip takes the crop of the frame nearest in time. If that frame has none, it
    takes the nearest earlier crop, and if there is none either, the first later one. A frame
    without a crop of its own has no clip.

    Args:
        images: (frame, crop) of the frames that have one, in order.
        times_s: (t,) of all frames, increasing.
        clip_frames: crops of a clip.
        step_s: seconds between them.

    Yields:
        (frame, (clip_frames, h, w, 3) uint8).
    """
    back_s = step_s * np.arange(clip_frames - 1, -1, -1)
    frames: list[int] = []
    crops: list[np.ndarray] = []
    for frame, image in images:
        frames.append(frame)
        crops.append(image)
        moments = np.minimum(nearest_frames(times_s, times_s[frame] - back_s), frame)
        chosen = [max(bisect.bisect_right(frames, int(f)) - 1, 0) for f in moments]
        yield frame, np.stack([crops[i] for i in chosen])
        # No later clip reaches further back than this one.
        del frames[: chosen[0]], crops[: chosen[0]]


class ClipEncoder:
    """Features of clips: at every place of the face (kind `r2plus1d`; RJCA), or one (`videomae`).

    Attributes:
        dim: positions * channels, position after position, rows from the top.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    stored_dtype = "float16"

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        workers: int,
        step_s: float,
        mean: Sequence[float],
        std: Sequence[float],
        kind: str = "r2plus1d",
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: folder made by `maven-jax convert`, Hugging Face folder or hub id, or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: clips per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            workers: threads that decode crops ahead of the encoder.
            step_s: seconds between the crops of a clip.
            mean: per channel, of pixels in [0, 1].
            std: per channel.
            kind: of the encoder.
            seed: of a random encoder.
            model: config of a random encoder.
        """
        loaded = open_encoder(kind, source, dtype, seed, model)
        config = loaded.module.config
        self._clip_frames, self._side = config.num_frames, config.image_size
        self._step_s, self._workers = step_s, workers
        # TSAV's fourth channel shows where its alignment put the face, which crops do not tell.
        # RJCA removes that channel's weights; zeros have the same effect.
        more = config.num_channels - 3

        def vectors(variables: Any, clips: jax.Array) -> jax.Array:
            x = jnp.pad(normalised(clips, mean, std), [(0, 0)] * 4 + [(0, more)])
            out = loaded.module.apply(variables, x).astype(jnp.float32)
            return out.reshape(len(out), -1)  # (n, positions * channels)

        self._run = DeviceFunction("visual", vectors, loaded.variables)
        self._sizes = buckets(batch_size, batch_buckets, self._run.device_count)
        shape = (1, self._clip_frames, self._side, self._side, 3)
        example = jax.ShapeDtypeStruct(shape, jnp.uint8)
        self.dim = int(jax.eval_shape(vectors, loaded.variables, example).shape[-1])
        self.spec = identity(
            loaded,
            feature="mean of the last hidden states"
            if kind == "videomae"
            else "positions × channels behind the last block",
            preprocessing={
                "resize": self._side,
                "mean": list(mean),
                "std": list(std),
                "clip_frames": self._clip_frames,
                "step_s": step_s,
                "positions": config.num_positions,
            },
            dtype=dtype,
        )

    def blocks(
        self, crops: CropFolder, times_s: np.ndarray, clock: Clock, max_block: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of the frames at the times (t,), in order.

        Args:
            crops: the video's crops.
            times_s: of all frames, increasing seconds.
            clock: takes the time spent.
            max_block: at most so many frames at once.

        Yields:
            Consecutive blocks: features (n, dim) float32, zero where masked, and mask (n,).
        """
        size = self._sizes[-1]
        images = decoded(
            crops,
            len(times_s),
            lambda image: resized(image, self._side),
            workers=self._workers,
            ahead=2 * size,
            clock=clock,
        )
        clips = clips_of(images, times_s, self._clip_frames, self._step_s)
        batches = run_ahead(self._run, self._sizes, in_batches(clips, size), clock)
        yield from on_frames(batches, len(times_s), self.dim, max_block)
