"""Published networks of affect on a user's own media: no training, no checkpoint.

A recipe in configs/affect names an encoder of `features`, which of its outputs to take (`logits`),
and how that becomes valence and arousal (`affect_maps`). `configs/affect/default.py` says which
of them are taken for which modality, and how far each is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from maven_jax import recipes
from maven_jax.convert import named_weights
from maven_jax.convert.named_weights import NamedWeights
from maven_jax.errors import UserError
from maven_jax.features.reader import MODALITIES, open_encoders
from maven_jax.progress import meter, say
from maven_jax.store.schema import ExtraTarget, VideoEntry, mask_field
from maven_jax.types import DIMENSIONS
from maven_jax.video.affect_maps import ClassMap, DimensionMap, combined, make_map
from maven_jax.video.arguments import as_workers
from maven_jax.video.live_frames import LiveFrames
from maven_jax.video.predictor import VideoPredictor

LABEL = "not trained on continuous labels: weak evidence"
DEFAULT = "default"
_GROUP = named_weights.GROUP
_BLOCK = 512
# What a modality is to people.
_WORDS = {"visual": "face", "audio": "voice", "text": "words"}


@dataclass(frozen=True)
class AffectModel:
    """One published network.

    Attributes:
        weights: whose they are.
        to_va: from its outputs.
        reliability: how far it is trusted, for valence and for arousal.
    """

    weights: NamedWeights
    to_va: ClassMap | DimensionMap
    reliability: tuple[float | int, float | int]


class AffectModels:
    """Published networks side by side, as a `FrameModel`.

    Args:
        source: the recipe that names them.
        models: modality -> network, in the fixed order of modalities.
        smooth_s: widths of the box filters over valence and arousal, in seconds.
        face_margin: around the boxes of faces, if the network for them was trained on boxes.
    """

    label = LABEL
    face_detectors: tuple[str, ...] = ()
    extra_targets: tuple[ExtraTarget, ...] = ()

    def __init__(
        self,
        source: str,
        models: Mapping[str, AffectModel],
        smooth_s: Sequence[float | int],
        face_margin: float | int | None = None,
    ):
        self.source, self.models, self._smooth_s = source, dict(models), tuple(smooth_s)
        self.face_margin = face_margin

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that there is a network for."""
        return tuple(self.models)

    @property
    def published(self) -> tuple[dict[str, str], ...]:
        """Of each: modality, title, training data, licence, and how far it is trusted."""
        return tuple(
            {
                "modality": modality,
                "title": model.weights.title,
                "trained_on": model.weights.trained_on,
                "licence": model.weights.licence,
                "page": model.weights.page,
                "reliability": ", ".join(
                    f"{name} {r:g}" for name, r in zip(DIMENSIONS, model.reliability)
                ),
            }
            for modality, model in self.models.items()
        )

    def smooth_frames(self, fps: float | int) -> tuple[int, int] | None:
        """Widths of the recipe's box filters, in frames."""
        valence, arousal = (max(round(s * fps), 1) for s in self._smooth_s)
        return None if (valence, arousal) == (1, 1) else (valence, arousal)

    def tuned(self) -> None:
        """Nothing was."""
        return

    def outputs(
        self, frames: LiveFrames, entry: VideoEntry, ways: bool, label: str
    ) -> Float32[np.ndarray, "n k 2"]:
        """See `FrameModel`."""
        n, names = entry.num_frames, list(self.models)
        result = np.zeros((n, 1 + len(names) * ways, 2), np.float32)
        reliability = np.array([m.reliability for m in self.models.values()], np.float32)
        with meter(label, n, "frames") as m:
            for start in range(0, n, _BLOCK):
                span = slice(start, min(start + _BLOCK, n))
                values, masks = self._read(frames, entry, span)
                result[span, 0] = combined(values, masks, reliability)
                for i in range(len(names) * ways):
                    others = masks & (np.arange(len(names)) != i)[:, None]
                    result[span, 1 + i] = combined(values, others, reliability)
                m.advance(span.stop - span.start)
        return result

    def _read(
        self, frames: LiveFrames, entry: VideoEntry, span: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (m, t, 2) and masks (m, t) of some frames."""
        count = span.stop - span.start
        fields: dict[str, np.ndarray] = {}
        for name in self.models:
            fields[name] = np.zeros((count, frames.modalities[name].dim), np.float32)
            fields[mask_field(name)] = np.zeros(count, bool)
        frames.read_into([(entry, span)], [fields])
        values = [model.to_va(fields[name]) for name, model in self.models.items()]
        return np.stack(values), np.stack([fields[mask_field(name)] for name in self.models])


def load_affect(
    name: str = DEFAULT,
    *,
    overrides: Sequence[str] = (),
    workers: SupportsIndex | None = None,
) -> VideoPredictor:
    """A predictor by the published networks whose weights are on this machine.

    If there are none, the recipe's smallest are fetched, which is said first.

    Args:
        name: recipe in configs/affect.
        overrides: as `--affect.places.sad=-0.7,-0.3`.
        workers: threads that decode crops; None for one per core.

    Raises:
        UserError: no such recipe, a wrong value, or weights that cannot be had or used.
    """
    threads = as_workers(workers, os.cpu_count() or 1)
    config = recipes.load(name, _GROUP)
    if "models" not in config:
        raise UserError(f"{name}: one network, not a set of them; --affect takes {DEFAULT!r}")
    recipes.override(config, overrides, prefix=_GROUP)
    chosen = _chosen(config)
    if not chosen:
        first = named_weights.named(config.fetch)
        say("no network of affect is on this machine:")
        say("\n".join(first.about()))
        modality = _modality(config, config.fetch)
        chosen = {modality: (config.fetch, first, named_weights.fetch(first))}
    sections, models, margin = ConfigDict(), dict[str, AffectModel](), None
    for modality in MODALITIES:
        if modality in chosen:
            recipe_name, weights, place = chosen[modality]
            recipe = recipes.load(recipe_name, _GROUP)
            sections[modality] = recipe.encoder
            margin = recipe.get("face_margin", margin)
            sections[modality].source = str(named_weights.file_of(weights, place))
            models[modality] = AffectModel(
                weights,
                make_map(
                    recipes.plain(recipe.map), recipes.plain(config.places), f"{weights.name}.map"
                ),
                _reliability(config, modality),
            )
        else:
            _say_what_is_missing(config, modality)
    say(f"CAUTION: {LABEL}")
    encoders = open_encoders(sections, tuple(models), threads)
    for modality, spec in encoders.specs().items():
        expected = models[modality].to_va.num_outputs
        if spec.dim != expected:
            raise UserError(
                f"{models[modality].weights.name}: its network has {spec.dim} outputs, its map "
                f"takes {expected}"
            )
    return VideoPredictor(AffectModels(name, models, config.smooth_s, margin), encoders)


def _chosen(config: Any) -> dict[str, tuple[str, NamedWeights, Path]]:
    """Of each modality, the first recipe whose weights are here, the weights, and where."""
    chosen = {}
    for modality, candidates in recipes.plain(config.models).items():
        if modality not in MODALITIES:
            raise UserError(f"affect.models: {modality!r} is not one of {', '.join(MODALITIES)}")
        for name in candidates:
            weights = named_weights.named(name)
            if place := named_weights.find(weights):
                chosen[modality] = (name, weights, place)
                break
    return chosen


def _modality(config: Any, name: str) -> str:
    for modality, candidates in recipes.plain(config.models).items():
        if name in candidates:
            return modality
    raise UserError(f"affect.fetch {name!r}: none of affect.models")


def _reliability(config: Any, modality: str) -> tuple[float | int, float | int]:
    given = tuple(config.reliability.get(modality, ()))
    if len(given) != 2 or not all(0 < r <= 1 for r in given):
        raise UserError(
            f"affect.reliability.{modality} {given}: expected two numbers above 0, at most 1, for "
            "valence and for arousal"
        )
    return given[0], given[1]


def _say_what_is_missing(config: Any, modality: str) -> None:
    for name in recipes.plain(config.models).get(modality, ())[:1]:
        weights = named_weights.named(name)
        say(
            f"no network for the {_WORDS[modality]} is here; `maven-jax weights {name}` "
            f"fetches one ({weights.size}, {weights.licence})"
        )
