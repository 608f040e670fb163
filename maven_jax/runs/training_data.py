"""What a model was trained on, as it is written down beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maven_jax.errors import UserError
from maven_jax.experiment import Experiment, feature_kinds
from maven_jax.inputs import mismatch
from maven_jax.store.schema import ModalitySpec


@dataclass(frozen=True)
class TrainingData:
    """Features, the encoders that they come from, and how many of them.

    Attributes:
        modalities: name -> how its features were made, in the order that the model takes them.
        encoders: modality -> its section of the encoders' recipe; empty for features made
            elsewhere.
        target_mean: of valence and arousal in training.
        splits: split -> `videos`, `frames`, `annotated` frames.
        held_out: a digest of the videos that its fold held out; None without a fold.
        face_detectors: what cut its crops, if that is known.
    """

    modalities: dict[str, ModalitySpec]
    encoders: dict[str, dict[str, Any]]
    target_mean: tuple[float, float]
    splits: dict[str, dict[str, int]]
    held_out: str | None = None
    face_detectors: tuple[str, ...] = ()

    @classmethod
    def of(cls, experiment: Experiment) -> TrainingData:
        """Of a run that trains on an experiment's store."""
        encoders = experiment.store.provenance.get("encoders") or {}
        splits = {}
        for split in experiment.store.splits:
            entries = experiment.entries(split)
            splits[split] = {
                "videos": len(entries),
                "frames": sum(e.num_frames for e in entries),
                "annotated": sum(e.num_annotated for e in entries),
            }
        modalities = experiment.modalities
        return cls(
            modalities=modalities,
            encoders={m: encoders[m] for m in modalities if m in encoders},
            target_mean=experiment.target_mean,
            splits=splits,
            held_out=experiment.held_out,
            face_detectors=tuple(sorted({s["detector"] for s in experiment.store.face_searches})),
        )

    def kinds(self) -> dict[str, dict[str, Any]]:
        """As `experiment.check_features` takes them."""
        return feature_kinds(self.modalities)

    def to_json(self) -> dict[str, Any]:
        return {
            # A list keeps the order in which the model takes them; JSON's keys are sorted.
            "modalities": [{"name": m, **s.to_json()} for m, s in self.modalities.items()],
            "encoders": self.encoders,
            "target_mean": list(self.target_mean),
            "splits": self.splits,
            "held_out": self.held_out,
            "face_detectors": list(self.face_detectors),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> TrainingData:
        """The inverse of `to_json`.

        Raises:
            UserError: it is not what `to_json` writes.
        """
        try:
            modalities = {}
            for item in content["modalities"]:
                spec = ModalitySpec.from_json(item["name"], item)
                whole = isinstance(spec.dim, int) and not isinstance(spec.dim, bool)
                if not (isinstance(spec.name, str) and whole and spec.dim > 0):
                    raise ValueError(f"modality {spec.name!r} of width {spec.dim!r}")
                if not isinstance(spec.spec, dict):
                    raise ValueError(f"modality {spec.name!r} without its spec")
                modalities[spec.name] = spec
            valence, arousal = content["target_mean"]
            held_out = content.get("held_out")
            if not isinstance(held_out, str | None):
                raise ValueError(f"held_out {held_out!r}")
            detectors = content.get("face_detectors", [])
            if fault := mismatch(detectors, [str], "face_detectors"):
                raise ValueError(fault)
            return cls(
                modalities=modalities,
                encoders={str(m): dict(section) for m, section in content["encoders"].items()},
                target_mean=(float(valence), float(arousal)),
                splits={
                    str(s): {k: int(counts[k]) for k in ("videos", "frames", "annotated")}
                    for s, counts in content["splits"].items()
                },
                held_out=held_out,
                face_detectors=tuple(detectors),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{where}: trained_on is not written as this version writes it ({error})"
            ) from error
