"""Face crops in grey through mini-Xception: classes of expression, or the features under them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.errors import UserError
from maven_jax.features.model_files import EMBEDDING, LOGITS, OUTPUTS, identity, open_encoder
from maven_jax.features.visual import CropEncoder, centre_crop, resized


class GreyFaceEncoder(CropEncoder):
    """What mini-Xception makes of face crops (kind `mini_xception`)."""

    kind = "mini_xception"

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
        output: str = EMBEDDING,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the network.

        Args:
            source: Keras's HDF5 file, or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: crops per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            workers: threads that decode crops ahead of the encoder.
            resize: side in pixels that a crop is brought to.
            crop: side in pixels of what is taken from its middle.
            output: "embedding", or "logits" for the scores of the classes.
            seed: of a random network.
            model: sizes of a random network.
        """
        if output not in OUTPUTS:
            raise UserError(f"encoder output {output!r}: expected one of {', '.join(OUTPUTS)}")
        if crop > resize:
            raise UserError(f"encoders.visual: crop {crop} exceeds resize {resize}")
        loaded = open_encoder(self.kind, source, dtype, seed, model)

        def vectors(variables: Any, pixels: jax.Array) -> jax.Array:
            images = pixels.astype(jnp.float32) / 127.5 - 1
            out: Any = loaded.module.apply(variables, images)
            return (out.logits if output == LOGITS else out.pooled).astype(jnp.float32)

        def prepare(image: np.ndarray) -> np.ndarray:
            grey = cv2.cvtColor(centre_crop(resized(image, resize), crop), cv2.COLOR_RGB2GRAY)
            return grey[..., None]

        super().__init__(
            vectors,
            loaded.variables,
            prepare,
            (crop, crop, 1),
            batch_size=batch_size,
            batch_buckets=batch_buckets,
            workers=workers,
        )
        self.spec = identity(
            loaded,
            feature="logits" if output == LOGITS else "pooled",
            preprocessing={"resize": resize, "crop": crop, "grey": True, "range": [-1, 1]},
            dtype=dtype,
        )
