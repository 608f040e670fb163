"""Face crops in frame order, each decoded once by threads that run ahead of the encoder."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import numpy as np

from maven_jax.features.device import Clock


@runtime_checkable
class CropFolder(Protocol):
    """What encoders need of a recording's crops (`maven_jax.media.crops.Crops`)."""

    @property
    def existing(self) -> Any:
        """Sorted 0-based indices of the frames that have a crop."""
        ...

    def load(self, frame: int) -> np.ndarray | None:
        """The crop (h, w, 3) uint8 RGB; None if there is none or it cannot be decoded."""
        ...


def decoded(
    crops: CropFolder,
    num_frames: int,
    prepare: Callable[[np.ndarray], np.ndarray],
    *,
    workers: int,
    ahead: int,
    clock: Clock,
) -> Iterator[tuple[int, np.ndarray]]:
    """The crops that exist and decode, in order, as (frame, prepared image).

    Args:
        crops: the video's crops; those of frames beyond `num_frames` are not read.
        num_frames: of the video.
        prepare: applied to every crop (h, w, 3) uint8, in the threads.
        workers: threads.
        ahead: at most so many crops are decoded in advance, which bounds the memory.
        clock: takes the threads' time, as "decode".
    """
    frames = iter([int(f) for f in crops.existing if f < num_frames])

    def load(frame: int) -> np.ndarray | None:
        with clock("decode"):
            image = crops.load(frame)
            return None if image is None else prepare(image)

    with ThreadPoolExecutor(workers, "crops") as pool:
        queue: collections.deque[tuple[int, Future]] = collections.deque()
        try:
            while True:
                while len(queue) < ahead and (frame := next(frames, None)) is not None:
                    queue.append((frame, pool.submit(load, frame)))
                if not queue:
                    return
                frame, future = queue.popleft()
                image = future.result()
                if image is not None:
                    yield frame, image
        finally:
            for _, future in queue:
                future.cancel()
