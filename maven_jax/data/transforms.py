"""What happens to a batch on the device before the model sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float

from maven_jax.errors import UserError
from maven_jax.types import Batch


@no_type_check
@struct.dataclass
class FeatureStatistics:
    """Mean and standard deviation of each channel, over the training split's observed frames.

    Attributes:
        mean: modality -> (c,).
        std: modality -> (c,).
    """

    mean: dict[str, Float[Array, "_"]]
    std: dict[str, Float[Array, "_"]]


STANDARDIZE = ("store", "window", "none")


@dataclasses.dataclass(frozen=True)
class InputTransform:
    """Standardises features, and in training changes what differs between people but not in what
    they feel: noise, offsets, missing channels and modalities, the speed of time.

    Modalities of uint8 values (pixels) stay as they are: the encoder that takes them scales them
    itself, and noise of one grey level would vanish in its input.

    Attributes:
        standardize: `store` uses the training split's statistics of each channel; `window`
            gives each modality of each window mean 0 and standard deviation 1 over all its
            values, as MAVEN's release does (this removes differences between windows); `none`
            does nothing. One for all, or one for each modality that is not uint8.
        noise_std: standard deviation of Gaussian noise added to the standardised features.
        noise_always: add it outside training too, as MAVEN's release does.
        offset_std: standard deviation of Gaussian noise that is the same for all frames of a
            window, in training. It imitates what differs between recordings but not within one
            (a face's shape, a microphone), of which a small corpus shows little.
        video_offset_std: the same, but along the directions in which the training videos differ
            (`data.offsets`), and as much as they do at 1: a random person instead of a random
            vector. Needs `standardize=store`.
        channel_dropout: probability with which a channel is zero for all frames of a window, in
            training; the others grow so that their sum stays the same on average.
        speed: a window runs in training at a random speed between 1 / (1 + speed) and 1 + speed,
            around its middle; frames that it then lacks are masked. Labels move with the frames.
        modality_dropout: probability with which a window loses each of its modalities in
            training; at least one that was observed stays.
        directions: modality -> what `data.offsets.directions_between` gives; None outside training.
    """

    standardize: str | Mapping[str, str]
    noise_std: float
    noise_always: bool
    offset_std: float
    video_offset_std: float
    channel_dropout: float
    speed: float
    modality_dropout: float
    directions: Mapping[str, Float[np.ndarray, "_ _"]] | None = None

    def __post_init__(self):
        one = isinstance(self.standardize, str)
        by_modality = {"": self.standardize} if one else self.standardize
        for name, how in by_modality.items():
            if how not in STANDARDIZE:
                raise UserError(
                    f"config.inputs.standardize{name and '.'}{name}={how!r}: expected one of "
                    + ", ".join(STANDARDIZE)
                )
        if not 0 <= self.modality_dropout < 1:
            raise UserError("config.inputs.modality_dropout must be in [0, 1)")
        if self.video_offset_std and set(by_modality.values()) != {"store"}:
            raise UserError(
                "config.inputs.video_offset_std needs config.inputs.standardize=store; "
                "0 switches it off"
            )

    def __call__(
        self, batch: Batch, statistics: FeatureStatistics, key: Array, *, train: bool
    ) -> Batch:
        """Returns the batch for the model: float32 or uint8, zero where nothing was observed.

        Raises:
            UserError: `standardize` lacks a modality.
        """
        noise_key, offset_key, drop_key = jax.random.split(key, 3)
        channel_key, speed_key = jax.random.split(jax.random.fold_in(key, 3))
        video_keys = jax.random.split(jax.random.fold_in(key, 4), len(batch.features))
        if train and self.speed:
            batch = change_speed(speed_key, batch, self.speed)
        features = {}
        for i, (name, x) in enumerate(batch.features.items()):
            mask = batch.modality_masks[name][..., None]
            # An unobserved frame may hold anything, even NaN, which must not spread.
            if x.dtype == jnp.uint8:
                features[name] = jnp.where(mask, x, jnp.uint8(0))
                continue
            x = jnp.where(mask, x.astype(jnp.float32), 0.0)
            how = self._how(name)
            if how == "store":
                x = (x - statistics.mean[name]) / jnp.maximum(statistics.std[name], 1e-6)
            elif how == "window":
                x = standardize_window(x, mask)
            if self.noise_std and (train or self.noise_always):
                noise = _noise(jax.random.fold_in(noise_key, i), x.shape, batch.window, train)
                x = x + self.noise_std * noise
            if self.offset_std and train:
                shape = (x.shape[0], 1, x.shape[2])
                offset = jax.random.normal(jax.random.fold_in(offset_key, i), shape)
                x = x + self.offset_std * offset
            if self.video_offset_std and train and self.directions:
                rows = self.directions[name]
                weights = jax.random.normal(video_keys[i], (x.shape[0], len(rows)))
                x = x + self.video_offset_std * (weights @ rows)[:, None]
            if self.channel_dropout and train:
                shape, stays = (x.shape[0], 1, x.shape[2]), 1 - self.channel_dropout
                kept = jax.random.bernoulli(jax.random.fold_in(channel_key, i), stays, shape)
                x = jnp.where(kept, x / stays, 0.0)
            features[name] = jnp.where(mask, x, 0.0)
        masks = dict(batch.modality_masks)
        if train and self.modality_dropout and len(masks) > 1:
            masks = drop_modalities(drop_key, masks, self.modality_dropout)
        return batch.replace(features=features, modality_masks=masks)

    def by_store(self, modalities: Iterable[str]) -> list[str]:
        """Those of the modalities that are standardised by the training split's statistics."""
        return [m for m in modalities if self._how(m) == "store"]

    def _how(self, modality: str) -> str:
        if isinstance(self.standardize, str):
            return self.standardize
        if modality not in self.standardize:
            raise UserError(
                f"config.inputs.standardize has {', '.join(self.standardize) or 'nothing'}, but "
                f"not {modality}"
            )
        return self.standardize[modality]


def _noise(key: Array, shape: tuple[int, ...], window: Array, train: bool) -> Array:
    """Standard normal values; outside training they depend on the window, not on its batch."""
    if train:
        return jax.random.normal(key, shape)
    return jax.vmap(lambda w: jax.random.normal(jax.random.fold_in(key, w), shape[1:]))(window)


def standardize_window(
    x: Float[Array, "b s c"], mask: Bool[Array, "b s 1"]
) -> Float[Array, "b s c"]:
    """Each window's tensor with mean 0 and standard deviation 1 over its observed values."""
    count = jnp.maximum(mask.sum((1, 2), keepdims=True) * x.shape[-1], 1)
    mean = jnp.where(mask, x, 0).sum((1, 2), keepdims=True) / count
    centred = jnp.where(mask, x - mean, 0)
    std = jnp.sqrt(jnp.square(centred).sum((1, 2), keepdims=True) / count)
    return centred / (std + 1e-6)


def change_speed(key: Array, batch: Batch, most: float | int) -> Batch:
    """Each window at a speed of its own: every frame becomes the one nearest to its new time.

    Modalities with one vector per window stay as they are.

    Args:
        key: of the draw.
        batch: windows of t frames.
        most: speeds lie between 1 / (1 + most) and 1 + most, evenly in their logarithms.
    """
    rows, frames = batch.frame_mask.shape
    bound = jnp.log1p(most)
    speed = jnp.exp(jax.random.uniform(key, (rows, 1), minval=-bound, maxval=bound))
    middle = (frames - 1) / 2
    source = jnp.round(middle + speed * (jnp.arange(frames) - middle)).astype(jnp.int32)
    inside = (source >= 0) & (source < frames)
    source = jnp.clip(source, 0, frames - 1)

    def moved(x: Array) -> Array:
        if x.shape[1] != frames:
            return x
        return jnp.take_along_axis(x, source.reshape(*source.shape, *[1] * (x.ndim - 2)), axis=1)

    return batch.replace(
        features={m: moved(x) for m, x in batch.features.items()},
        modality_masks={m: moved(x) for m, x in batch.modality_masks.items()},
        frame_mask=moved(batch.frame_mask) & inside,
        targets=moved(batch.targets),
        target_mask=moved(batch.target_mask) & inside,
        extra_targets={n: moved(x) for n, x in batch.extra_targets.items()},
        extra_masks={n: moved(x) & inside for n, x in batch.extra_masks.items()},
    )


def drop_modalities(
    key: Array, masks: dict[str, Bool[Array, "b _"]], rate: float
) -> dict[str, Bool[Array, "b _"]]:
    """Hides each modality of each window with probability `rate`, never all that it has."""
    names = list(masks)
    present = jnp.stack([masks[n].any(-1) for n in names], -1)  # (b, m)
    draw = jax.random.uniform(key, present.shape)
    # The present modality with the largest draw always stays.
    best = jnp.argmax(jnp.where(present, draw, -1.0), -1)
    keep = (draw >= rate) | (jnp.arange(len(names)) == best[:, None])
    return {n: masks[n] & keep[:, i, None] for i, n in enumerate(names)}
