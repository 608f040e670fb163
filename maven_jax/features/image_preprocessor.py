"""What the image processors of published encoders do to a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from maven_jax.errors import UserError

# More than any encoder takes.
_MOST_PIXELS = 4096
# ConvNeXt crops nothing from pictures of this size on.
_WHOLE_FROM = 384


class ImagePreprocessor:
    """What `transformers` does to one RGB image, in two halves.

    The host resizes (and crops) to uint8. Rescaling and normalising map a byte to a float, so on
    the device they are a table of 256 entries per channel. Both halves together equal
    `ViTImageProcessorPil` and, for CLIP and DINOv2, `CLIPImageProcessorPil` bit for bit.

    Attributes:
        height, width: size after resizing and cropping, pixels.
        table: (256, 3) float32, the normalised value of every byte per channel.
        settings: what is done, for the store.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Takes the settings of a `preprocessor_config.json` of an image processor.

        Raises:
            UserError: it does what is not implemented, or a value is impossible.
        """
        from transformers import ViTImageProcessorPil

        if settings.get("do_pad"):
            raise UserError("image processors that pad are not supported")
        if not settings.get("do_resize", True):
            raise UserError("image processor does not resize: expected do_resize")
        size, crop = settings.get("size", 224), None
        if settings.get("do_center_crop"):
            crop = _sides(settings.get("crop_size", 224), "crop_size")
            size = {"shortest_edge": size} if isinstance(size, int) else size
        if "crop_pct" in settings and isinstance(size, Mapping):  # ConvNeXt's
            size, crop = _within(size, settings["crop_pct"])
        self._edge = _edge(size, crop)
        self.height, self.width = crop or _sides(size, "size")
        names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
        arguments = {k: settings[k] for k in (*names, "resample") if k in settings}
        processor: Any = ViTImageProcessorPil(
            size={"height": self.height, "width": self.width}, **arguments
        )
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
        if self._edge is not None:
            self.settings["shortest_edge"] = self._edge

    def resize(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 → (height, width, 3) uint8."""
        width, height = self.width, self.height
        if self._edge is not None:
            short, long = sorted(image.shape[:2])
            long = int(self._edge * long / short)
            tall = image.shape[0] > image.shape[1]
            width, height = (self._edge, long) if tall else (long, self._edge)
        resized = PIL.Image.fromarray(image).resize((width, height), self._resample)
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return np.asarray(resized)[top : top + self.height, left : left + self.width]

    def normalise(self, pixels: jax.Array | np.ndarray) -> jax.Array:
        """(…, 3) uint8 → float32, on the device."""
        return jnp.asarray(self.table)[pixels, jnp.arange(3)]


def _sides(size: Any, key: str) -> tuple[int, int]:
    """Height and width."""
    sides: tuple[Any, ...] = (size, size) if isinstance(size, int) else ()
    if isinstance(size, Mapping):
        sides = (size.get("height"), size.get("width"))
    if not (len(sides) == 2 and all(isinstance(n, int) and 0 < n <= _MOST_PIXELS for n in sides)):
        raise UserError(f"image processor resizes to {key} {size}: expected height and width")
    height, width = sides
    return height, width


def _within(size: Mapping[str, Any], share: Any) -> tuple[Any, tuple[int, int] | None]:
    """What ConvNeXt resizes to and crops: a share of small pictures, the whole of large ones."""
    edge = size.get("shortest_edge")
    if not isinstance(edge, int) or not isinstance(share, int | float) or not 0.1 <= share <= 1:
        raise UserError(f"image processor resizes to {dict(size)} and takes {share!r} of it")
    if edge >= _WHOLE_FROM:
        return {"height": edge, "width": edge}, None
    return {"shortest_edge": int(edge / share)}, (edge, edge)


def _edge(size: Any, crop: tuple[int, int] | None) -> int | None:
    """The length to which the shorter side is brought; None if both sides are given."""
    if not isinstance(size, Mapping) or "shortest_edge" not in size:
        return None
    edge = size["shortest_edge"]
    if crop is None or not isinstance(edge, int) or not max(crop) <= edge <= _MOST_PIXELS:
        raise UserError(
            f"image processor resizes to {dict(size)} and crops {crop}: expected height and width, "
            "or a crop within"
        )
    return edge
