"""Encoders and a fusion model in one graph, trained on crops and spectrograms themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Num

from maven_jax.encoders.registry import kind_of
from maven_jax.errors import UserError
from maven_jax.types import Features, ModalityMasks, Prediction


def _crops(key: Array | None, count: int, spare: int) -> tuple[Array, Array, Array]:
    """First row, first column (each 0 … spare) and mirroring of each window's crop.

    Without a key all crops are in the middle and not mirrored.
    """
    if key is None:
        middle = jnp.full(count, spare // 2, jnp.int32)
        return middle, middle, jnp.zeros(count, bool)
    rows, columns, mirrored = jax.random.split(key, 3)
    return (
        jax.random.randint(rows, (count,), 0, spare + 1),
        jax.random.randint(columns, (count,), 0, spare + 1),
        jax.random.bernoulli(mirrored, shape=(count,)),
    )


def face_images(
    flat: Num[Array, "b t _"], size: int, channels: int, key: Array | None
) -> Float[Array, "b t size size channels"]:
    """Crops of `size` from square pictures of bytes, as values from -1 to 1.

    As RJCMA's released code prepares its faces: in training all pictures of a window are cut at the
    same random place, and mirrored with probability 1/2; otherwise they are cut in the middle.

    Args:
        flat: rows, columns, channels, from 0 to 255.
        size: pixels along each side of the crops.
        channels: of a pixel.
        key: of the random places; None for the middle.

    Raises:
        UserError: not square pictures, or smaller ones than `size`.
    """
    side = math.isqrt(flat.shape[-1] // channels)
    if side * side * channels != flat.shape[-1] or side < size:
        raise UserError(
            f"config.model.encoders: {flat.shape[-1]} values a frame do not make a square "
            f"picture of {channels} channels with at least {size} x {size} pixels"
        )
    pictures = flat.reshape(*flat.shape[:2], side, side, channels)

    def cut(window: Array, row: Array, column: Array, mirrored: Array) -> Array:
        part = jax.lax.dynamic_slice_in_dim(window, row, size, axis=1)
        part = jax.lax.dynamic_slice_in_dim(part, column, size, axis=2)
        return jnp.where(mirrored, jnp.flip(part, axis=2), part)

    parts = jax.vmap(cut)(pictures, *_crops(key, len(flat), side - size))
    return (parts.astype(jnp.float32) / 255.0 - 0.5) / 0.5


def log_mel_examples(
    flat: Num[Array, "b t _"], frames: int, bands: int
) -> Float[Array, "b t frames bands"]:
    """Spectrograms (time, frequency) from rows of values.

    Raises:
        UserError: another number of values.
    """
    if flat.shape[-1] != frames * bands:
        raise UserError(
            f"config.model.encoders: {flat.shape[-1]} values a frame do not make a "
            f"spectrogram of {frames} x {bands}"
        )
    return flat.astype(jnp.float32).reshape(*flat.shape[:2], frames, bands)


# Encoder kind -> the function that turns the raw values of frames into its input.
_INPUTS: dict[str, Callable[[Array, Any, Array | None], Array]] = {
    "iresnet50": lambda x, c, key: face_images(x, c.image_size, c.num_channels, key),
    "vggish": lambda x, c, key: log_mel_examples(x, c.num_frames, c.num_bands),
}


class EndToEnd(nn.Module, kw_only=True):
    """Encodes raw frames of some modalities, then fuses them with the others' features.

    The last rounds of RJCMA's training (ABAW6, 2024; released code), in which groups of backbone
    layers are trained along with the fusion (`train.stages`). The encoders' batch norms behave as
    in inference throughout, so that a window's prediction does not depend on its neighbours.

    Attributes:
        modalities: names, in order.
        encoders: modality -> `kind` (iresnet50 for crops of faces, vggish for log-mel examples)
            and the sizes of the encoder's own config; other modalities pass through.
        fusion: the model that takes the encoders' features; its parameters lie under `fusion`,
            the encoders' under `encoder_<modality>`.
        remat: recompute the encoders' activations in the backward pass.
        dtype: of the encoders' computation; parameters and features are float32.
    """

    modalities: tuple[str, ...]
    encoders: Mapping[str, Mapping[str, Any]]
    fusion: nn.Module
    remat: bool
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Features,
        modality_masks: ModalityMasks,
        frame_mask: Bool[Array, "b t"],
        *,
        train: bool,
    ) -> Prediction:
        """Returns the prediction for every frame; frames outside `frame_mask` hold anything.

        Raises:
            UserError: an encoder for a modality that does not exist, of a kind that takes no raw
                frames, or of other sizes than the frames.
        """
        encoded = dict(features)
        for name, section in self.encoders.items():
            if name not in features:
                raise UserError(
                    f"config.model.encoders.{name}: the modalities are {', '.join(features)}"
                )
            key = self.make_rng("dropout") if train else None
            encoded[name] = self._encode(
                name, section, features[name], modality_masks[name], frame_mask, key
            )
        return self.fusion(encoded, modality_masks, frame_mask, train=train)

    def _encode(
        self,
        name: str,
        section: Mapping[str, Any],
        x: Num[Array, "b s _"],
        mask: Bool[Array, "b s"],
        frame_mask: Bool[Array, "b t"],
        key: Array | None,
    ) -> Float[Array, "b s d"]:
        """The embeddings of one modality's frames, 0 where nothing was observed."""
        config = dict(section)
        kind_name = config.pop("kind", None)
        if kind_name not in _INPUTS:
            raise UserError(
                f"config.model.encoders.{name}.kind={kind_name!r}: expected {' or '.join(_INPUTS)}"
            )
        kind = kind_of(kind_name)
        sizes = kind.read(config)
        if mask.shape == frame_mask.shape:
            mask = mask & frame_mask
        x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
        inputs = _INPUTS[kind_name](x, sizes, key)
        module = kind.make(sizes, dtype=self.dtype, remat=self.remat, name=f"encoder_{name}")
        values = module(inputs.reshape(-1, *inputs.shape[2:]))
        values = values.reshape(*x.shape[:2], -1)
        return jnp.where(mask[..., None], values, 0.0)
