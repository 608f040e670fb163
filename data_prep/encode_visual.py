"""Face crops to one vector per frame: Swin on batches of crops, decoded ahead by threads."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from data_prep.device import Clock, DeviceFunction, bucket_of, buckets, pad_rows
from data_prep.model_files import identity, open_encoder, read_preprocessor
from maven_jax.errors import UserError


class CropFolder(Protocol):
    """What is needed of a video's crops (`data_prep.faces.Crops`)."""

    @property
    def existing(self) -> Any:
        """Sorted 0-based indices of the frames that have a crop."""
        ...

    def load(self, frame: int) -> np.ndarray | None:
        """The crop (h, w, 3) uint8 RGB; None if there is none or it cannot be decoded."""
        ...


class ImagePreprocessor:
    """What `transformers.ViTImageProcessorPil` does to one RGB image, in two halves.

    The resizing to uint8 happens on the host; rescaling and normalising map a byte to a float, so
    on the device they are a table of 256 entries per channel. Both halves together equal the
    processor bit for bit.

    Attributes:
        height, width: size after resizing, pixels.
        table: (256, 3) float32, the normalised value of every byte per channel.
        settings: what is done, for the record.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Takes the settings of a `preprocessor_config.json` of a ViT-like image processor."""
        from transformers import ViTImageProcessorPil

        known = {k: v for k, v in settings.items() if not k.endswith("_type")}
        processor = ViTImageProcessorPil(**known)
        if getattr(processor, "do_center_crop", None) or getattr(processor, "do_pad", None):
            raise UserError("image processors that crop or pad are not supported")
        if not processor.do_resize or not (processor.size.height and processor.size.width):
            raise UserError(f"image processor resizes to {processor.size}: height, width wanted")
        self.height, self.width = int(processor.size.height), int(processor.size.width)
        self._resample = PIL.Image.Resampling(int(processor.resample))
        ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)  # (256, 3)
        values = ramp.T[:, :, None]  # (3, 256, 1): channels first, as the processor works
        if processor.do_rescale:
            values = processor.rescale(values, processor.rescale_factor)
        if processor.do_normalize:
            values = processor.normalize(values, processor.image_mean, processor.image_std)
        self.table = np.ascontiguousarray(values[:, :, 0].T, dtype=np.float32)
        self.settings = {
            "size": [self.height, self.width],
            "resample": self._resample.name.lower(),
            "rescale_factor": processor.rescale_factor if processor.do_rescale else None,
            "mean": list(processor.image_mean) if processor.do_normalize else None,
            "std": list(processor.image_std) if processor.do_normalize else None,
        }

    def resize(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 → (height, width, 3) uint8."""
        resized = PIL.Image.fromarray(image).resize((self.width, self.height), self._resample)
        return np.asarray(resized)

    def normalise(self, pixels: jax.Array | np.ndarray) -> jax.Array:
        """(…, 3) uint8 → float32, on the device."""
        return jnp.asarray(self.table)[pixels, jnp.arange(3)]


class VisualEncoder:
    """Pooled Swin features of face crops.

    Attributes:
        dim: channels of a feature.
        spec: identity of the features, for the store.
    """

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        workers: int,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
        preprocessor: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: Hugging Face folder or hub id ("owner/name@revision"), or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: crops per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            workers: threads that decode crops ahead of the encoder.
            seed: of a random encoder.
            model: Hugging Face config of a random encoder.
            preprocessor: settings of a random encoder's image processor.
        """
        loaded = open_encoder("swin", source, dtype, seed, model)
        self._prep = ImagePreprocessor(read_preprocessor(loaded, preprocessor))
        table = self._prep.normalise

        def pooled(params: Any, pixels: jax.Array) -> jax.Array:
            out = loaded.module.apply({"params": params}, table(pixels))
            return out.pooled.astype(jnp.float32)

        self._run = DeviceFunction("visual", pooled, loaded.params)
        self._sizes = buckets(batch_size, batch_buckets, self._run.device_count)
        self._workers = workers
        shape = jax.ShapeDtypeStruct((1, self._prep.height, self._prep.width, 3), jnp.uint8)
        self.dim = int(jax.eval_shape(pooled, loaded.params, shape).shape[-1])
        self.spec = identity(
            loaded, feature="pooled", preprocessing=self._prep.settings, dtype=dtype
        )

    def encode(
        self, crops: CropFolder, num_frames: int, clock: Clock, max_block: int = 512
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of the frames 0 … num_frames - 1, in order.

        Args:
            crops: the video's crops; those of frames beyond `num_frames` are not read.
            num_frames: of the video.
            clock: takes the time spent ("decode": waiting for crops, "visual": the encoder).
            max_block: at most so many frames at once.

        Yields:
            Consecutive blocks: features (n, dim) float32, zero where masked, and mask (n,).
        """
        done = 0
        for frames, features in self._in_flight(self._batches(crops, num_frames, clock), clock):
            stop = num_frames if frames is None else frames[-1] + 1
            while done < stop:
                end = min(done + max_block, stop)
                values = np.zeros((end - done, self.dim), np.float32)
                mask = np.zeros(end - done, bool)
                if frames is not None:
                    inside = (frames >= done) & (frames < end)
                    values[frames[inside] - done] = features[inside]
                    mask[frames[inside] - done] = True
                yield values, mask
                done = end

    def _batches(
        self, crops: CropFolder, num_frames: int, clock: Clock
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Full batches (only the last may be smaller): frames (n,), pixels (n, h, w, 3) uint8."""
        size = self._sizes[-1]
        wanted = iter([int(f) for f in crops.existing if f < num_frames])

        def load(frame: int) -> np.ndarray | None:
            image = crops.load(frame)
            return None if image is None else self._prep.resize(image)

        with ThreadPoolExecutor(self._workers, "crops") as pool:
            ahead: collections.deque[tuple[int, Future]] = collections.deque()
            frames: list[int] = []
            images: list[np.ndarray] = []
            try:
                while True:
                    # Decoding runs two batches ahead, no further: that bounds the memory.
                    while len(ahead) < 2 * size and (frame := next(wanted, None)) is not None:
                        ahead.append((frame, pool.submit(load, frame)))
                    if not ahead:
                        break
                    frame, future = ahead.popleft()
                    with clock("decode"):
                        image = future.result()
                    if image is not None:
                        frames.append(frame)
                        images.append(image)
                    if len(frames) == size:
                        yield np.array(frames), np.stack(images)
                        frames, images = [], []
                if frames:
                    yield np.array(frames), np.stack(images)
            finally:
                for _, future in ahead:
                    future.cancel()

    def _in_flight(
        self, batches: Iterator[tuple[np.ndarray, np.ndarray]], clock: Clock
    ) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
        """Encodes batches with one in flight while the next is gathered; ends with (None, …)."""
        waiting: tuple[np.ndarray, jax.Array] | None = None
        for frames, pixels in batches:
            with clock("visual"):
                result = self._run(pad_rows(pixels, bucket_of(len(frames), self._sizes)))
                before, waiting = waiting, (frames, result)
                ready = None if before is None else (before[0], np.asarray(before[1]))
            if ready is not None:
                yield ready[0], ready[1][: len(ready[0])]
        if waiting is not None:
            with clock("visual"):
                features = np.asarray(waiting[1])
            yield waiting[0], features[: len(waiting[0])]
        yield None, np.zeros((0, self.dim), np.float32)
