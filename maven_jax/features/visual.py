"""Face crops to one vector per frame, crop by crop: Swin, IR-50, or the pixels themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from maven_jax.errors import UserError
from maven_jax.features.crop_stream import CropFolder, decoded
from maven_jax.features.device import Clock, DeviceFunction, buckets
from maven_jax.features.model_files import identity, open_encoder, plain_identity, read_preprocessor
from maven_jax.features.per_frame import in_batches, on_frames, run_ahead


class ImagePreprocessor:
    """What `transformers.ViTImageProcessorPil` does to one RGB image, in two halves.

    The host resizes to uint8. Rescaling and normalising map a byte to a float, so on the device
    they are a table of 256 entries per channel. Both halves together equal the processor bit for
    bit.

    Attributes:
        height, width: size after resizing, pixels.
        table: (256, 3) float32, the normalised value of every byte per channel.
        settings: what is done, for the store.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Takes the settings of a `preprocessor_config.json` of a ViT-like image processor."""
        from transformers import ViTImageProcessorPil

        arguments = {k: v for k, v in settings.items() if not k.endswith("_type")}
        processor = ViTImageProcessorPil(**arguments)
        if getattr(processor, "do_center_crop", None) or getattr(processor, "do_pad", None):
            raise UserError("image processors that crop or pad are not supported")
        if not processor.do_resize or not (processor.size.height and processor.size.width):
            raise UserError(
                f"image processor resizes to {processor.size}: expected height and width"
            )
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


class CropEncoder:
    """Encodes crops one by one; subclasses say how.

    Attributes:
        dim: channels of a feature.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    dim: int
    spec: dict[str, Any]
    stored_dtype = "float16"

    def __init__(
        self,
        encode: Callable[[Any, jax.Array], jax.Array],
        params: Any,
        prepare: Callable[[np.ndarray], np.ndarray],
        shape: tuple[int, int, int],
        *,
        batch_size: int,
        batch_buckets: int,
        workers: int,
    ) -> None:
        """Compiles nothing yet.

        Args:
            encode: (params, (n, h, w, 3) uint8) to (n, dim) float32, on the device.
            params: its parameters.
            prepare: a crop to (h, w, 3) uint8, in the threads that decode.
            shape: (h, w, 3).
            batch_size: crops per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            workers: threads that decode crops ahead of the encoder.
        """
        self._run = DeviceFunction("visual", encode, params)
        self._sizes = buckets(batch_size, batch_buckets, self._run.device_count)
        self._prepare, self._workers = prepare, workers
        example = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
        self.dim = int(jax.eval_shape(encode, params, example).shape[-1])

    def encode(
        self, crops: CropFolder, num_frames: int, clock: Clock, max_block: int = 512
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of the frames 0 … num_frames - 1, in order.

        Args:
            crops: the video's crops; those of frames beyond `num_frames` are not read.
            num_frames: of the video.
            clock: takes the time spent.
            max_block: at most so many frames at once.

        Yields:
            Consecutive blocks: features (n, dim) float32, zero where masked, and mask (n,).
        """
        size = self._sizes[-1]
        images = decoded(
            crops, num_frames, self._prepare, workers=self._workers, ahead=2 * size, clock=clock
        )
        batches = run_ahead(self._run, self._sizes, in_batches(images, size), clock)
        yield from on_frames(batches, num_frames, self.dim, max_block)

    def blocks(
        self, crops: CropFolder, times_s: np.ndarray, clock: Clock, max_block: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `encode` yields for as many frames as there are times (t,)."""
        return self.encode(crops, len(times_s), clock, max_block)


class VisualEncoder(CropEncoder):
    """Pooled Swin features of face crops (kind `swin`)."""

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

        super().__init__(
            pooled,
            loaded.params,
            self._prep.resize,
            (self._prep.height, self._prep.width, 3),
            batch_size=batch_size,
            batch_buckets=batch_buckets,
            workers=workers,
        )
        self.spec = identity(
            loaded, feature="pooled", preprocessing=self._prep.settings, dtype=dtype
        )


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """(h, w, 3) uint8 → (side, side, 3) uint8, as PIL does it by default (bicubic)."""
    if image.shape[:2] == (side, side):
        return image
    picture = PIL.Image.fromarray(image)
    return np.asarray(picture.resize((side, side), PIL.Image.Resampling.BICUBIC))


def centre_crop(image: np.ndarray, side: int) -> np.ndarray:
    """The middle (side, side, 3) of an image."""
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def normalised(pixels: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """(…, 3) uint8 → float32: scaled to [0, 1], minus the mean, divided by the deviation."""
    x = pixels.astype(jnp.float32) / 255
    return (x - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


class FaceEncoder(CropEncoder):
    """IR-50 features of small face crops (kind `iresnet50`; RJCMA, 2024, section 3.1).

    As in RJCMA's released pipeline, a crop is resized to 48 x 48 and its middle 40 x 40 are taken.
    """

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        workers: int,
        resize: int,
        crop: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: folder made by `maven-jax convert`, or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: crops per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            workers: threads that decode crops ahead of the encoder.
            resize: side in pixels that a crop is brought to.
            crop: side in pixels of what is taken from its middle.
            mean: per channel, of pixels in [0, 1].
            std: per channel.
            seed: of a random encoder.
            model: config of a random encoder.
        """
        if crop > resize:
            raise UserError(f"encoders.visual: crop {crop} exceeds resize {resize}")
        loaded = open_encoder("iresnet50", source, dtype, seed, model)
        side = loaded.module.config.image_size  # pyright: ignore
        if crop != side:
            raise UserError(
                f"encoders.visual: crop is {crop}, but the faces of {source} are {side} x {side}: "
                f"--encoders.visual.resize={side} --encoders.visual.crop={side}"
            )

        def vectors(variables: Any, pixels: jax.Array) -> jax.Array:
            out = loaded.module.apply(variables, normalised(pixels, mean, std))
            return out.astype(jnp.float32)

        super().__init__(
            vectors,
            loaded.variables,
            lambda image: centre_crop(resized(image, resize), crop),
            (crop, crop, 3),
            batch_size=batch_size,
            batch_buckets=batch_buckets,
            workers=workers,
        )
        settings = {"resize": resize, "crop": crop, "mean": list(mean), "std": list(std)}
        self.spec = identity(loaded, feature="embedding", preprocessing=settings, dtype=dtype)


class RawCrops:
    """The crops themselves, resized, for encoders that are trained (kind `crops`).

    Attributes:
        dim: resize * resize * 3, rows of pixels from the top, red, green and blue side by side.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    stored_dtype = "uint8"

    def __init__(self, *, resize: int, workers: int) -> None:
        """Takes the side in pixels that crops are brought to, and the number of threads."""
        self._resize, self._workers = resize, workers
        self.dim = resize * resize * 3
        self.spec = plain_identity("crops", "pixels (h, w, rgb)", {"resize": resize})

    def blocks(
        self, crops: CropFolder, times_s: np.ndarray, clock: Clock, max_block: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pixels (n, dim) uint8 and masks (n,) of the frames, in blocks."""
        images = decoded(
            crops,
            len(times_s),
            lambda image: resized(image, self._resize).reshape(-1),
            workers=self._workers,
            ahead=2 * max_block,
            clock=clock,
        )
        batches = in_batches(images, max_block)
        yield from on_frames(batches, len(times_s), self.dim, max_block, self.stored_dtype)
