"""Face crops to one vector per frame, crop by crop: Swin, ViTs, IR-50, EfficientNet, or pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from maven_jax.convert.loaded import LoadedEncoder
from maven_jax.errors import UserError
from maven_jax.features.crop_stream import CropFolder, decoded
from maven_jax.features.device import Clock, DeviceFunction, buckets
from maven_jax.features.image_preprocessor import ImagePreprocessor
from maven_jax.features.model_files import (
    EMBEDDING,
    identity,
    open_encoder,
    plain_identity,
    read_preprocessor,
)
from maven_jax.features.per_frame import in_batches, on_frames, run_ahead


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


# Kind of a ViT's classifier -> what it was trained on; of the others, the image's token.
_HEAD_TAKES = {
    "swin": "mean",
    "swinv2": "mean",
    "convnext": "mean",
    "dinov2": "cls_mean",
    "dinov2_with_registers": "cls_mean",
}
_POOLS = ("cls", "mean", "cls_mean")
# Networks without a token for the image.
_MEAN_ONLY = ("swin", "swinv2", "convnext")


class VisualEncoder(CropEncoder):
    """Pooled features of face crops by networks of patches (kinds `swin`, `vit`, `dinov2`, …)."""

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        workers: int,
        kind: str = "swin",
        pool: str = "mean",
        output: str = EMBEDDING,
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
            kind: of the encoder.
            pool: the feature of an image: "cls", the token that stands for it, "mean" of its
                patches, or both, "cls_mean"; Swin and ConvNeXt have no token.
            output: "embedding", or "logits" for what its trained head says, whatever `pool` is.
            seed: of a random encoder.
            model: Hugging Face config of a random encoder.
            preprocessor: settings of a random encoder's image processor.
        """
        if pool not in (("mean",) if kind in _MEAN_ONLY else _POOLS):
            raise UserError(
                f"encoders.visual.pool {pool!r}: expected "
                f"{'mean' if kind in _MEAN_ONLY else ', '.join(_POOLS)}"
            )
        loaded = open_encoder(kind, source, dtype, seed, model, output)
        if loaded.head is not None:
            pool = _HEAD_TAKES.get(kind, "cls")
        self._prep = ImagePreprocessor(read_preprocessor(loaded, preprocessor))
        table = self._prep.normalise

        def pooled(params: Any, pixels: jax.Array) -> jax.Array:
            encoder, head = params
            out: Any = loaded.module.apply({"params": encoder}, table(pixels))
            parts = {"cls": ["cls"], "mean": ["mean"], "cls_mean": ["cls", "mean"]}[pool]
            x = jnp.concatenate([getattr(out, part) for part in parts], -1).astype(jnp.float32)
            return x if loaded.head is None else loaded.head[0](head, x)

        super().__init__(
            pooled,
            (loaded.params, loaded.head and loaded.head[1]),
            self._prep.resize,
            (self._prep.height, self._prep.width, 3),
            batch_size=batch_size,
            batch_buckets=batch_buckets,
            workers=workers,
        )
        self.spec = identity(
            loaded,
            feature=_feature(loaded, "pooled" if kind in _MEAN_ONLY else f"pooled: {pool}"),
            preprocessing=self._prep.settings,
            dtype=dtype,
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


def _feature(loaded: LoadedEncoder, embedding: str) -> str:
    """Which features these are, for the record."""
    return embedding if loaded.head is None else loaded.head[0].feature


class FaceEncoder(CropEncoder):
    """Features of face crops by convolutional networks (kinds `iresnet50`, `efficientnet`).

    As in RJCMA's released pipeline, a crop is resized to 48 x 48 and its middle 40 x 40 are taken
    for IR-50 (RJCMA, 2024, section 3.1). EmotiEffNet takes the whole crop.
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
        kind: str = "iresnet50",
        output: str = EMBEDDING,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: folder made by `maven-jax convert` or written by timm, file of weights, or
                "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: crops per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            workers: threads that decode crops ahead of the encoder.
            resize: side in pixels that a crop is brought to.
            crop: side in pixels of what is taken from its middle.
            mean: per channel, of pixels in [0, 1].
            std: per channel.
            kind: of the encoder.
            output: "embedding", or "logits" for what its trained head says.
            seed: of a random encoder.
            model: config of a random encoder, or the sizes that a file of weights does not tell.
        """
        if crop > resize:
            raise UserError(f"encoders.visual: crop {crop} exceeds resize {resize}")
        loaded = open_encoder(kind, source, dtype, seed, model, output)
        side = loaded.module.config.image_size if kind == "iresnet50" else crop
        if crop != side:
            raise UserError(
                f"encoders.visual: crop is {crop}, but the faces of {source} are {side} x {side}: "
                f"--encoders.visual.resize={side} --encoders.visual.crop={side}"
            )

        def vectors(params: Any, pixels: jax.Array) -> jax.Array:
            variables, head = params
            out: Any = loaded.module.apply(variables, normalised(pixels, mean, std))
            return out.astype(jnp.float32) if loaded.head is None else loaded.head[0](head, out)

        super().__init__(
            vectors,
            (loaded.variables, loaded.head and loaded.head[1]),
            lambda image: centre_crop(resized(image, resize), crop),
            (crop, crop, 3),
            batch_size=batch_size,
            batch_buckets=batch_buckets,
            workers=workers,
        )
        settings = {"resize": resize, "crop": crop, "mean": list(mean), "std": list(std)}
        feature = _feature(loaded, "embedding")
        self.spec = identity(loaded, feature=feature, preprocessing=settings, dtype=dtype)


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
