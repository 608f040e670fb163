"""A trained model as prediction needs it: from the workdir of a run, or from an exported bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from maven_jax import experiment
from maven_jax.data.pipeline import to_batch
from maven_jax.data.transforms import FeatureStatistics, InputTransform
from maven_jax.errors import UserError, listing
from maven_jax.evaluation.smoothing import Smoothing, read_smoothing
from maven_jax.evaluation.step import predict_function
from maven_jax.recipes import Config
from maven_jax.runs import bundle
from maven_jax.runs.bundle import weights_of
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.trained_on import TrainedOn
from maven_jax.runs.workdir import CONFIG_FILE, read_record
from maven_jax.runtime.sharding import logical_rules
from maven_jax.state import Weights, init_weights
from maven_jax.types import Batch


@dataclass(frozen=True)
class TrainedModel:
    """All that prediction needs to know, and what there is to say about it.

    Attributes:
        source: the workdir or bundle that it comes from.
        config: the resolved recipe.
        trained_on: features and encoders; a model understands no others.
        weights: NumPy arrays.
        step: training steps taken.
        scores: split -> what an evaluation of this step wrote, without single videos.
        smoothing: what `tune-smoothing` chose, for this step or another; None if it never ran.
        record: versions, commit, overrides, what it was converted from (JSON).
    """

    source: Path
    config: Config
    trained_on: TrainedOn
    weights: Weights
    step: int
    scores: dict[str, dict[str, Any]]
    smoothing: Smoothing | None
    record: dict[str, Any]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of valence and arousal that were trained."""
        return experiment.trained_dimensions(self.config)

    @property
    def label(self) -> str:
        """Why its numbers mean nothing for people's videos; "" if nothing says so."""
        if not self.step and "converted" not in self.record:
            return "untrained weights"
        untrained = [m for m, spec in self.trained_on.modalities.items() if spec.untrained]
        if untrained:
            names = ", ".join(untrained)
            return f"features of untrained encoders ({names}): no claim beyond the training corpus"
        return ""

    def tuned_frames(self) -> tuple[int, int] | None:
        """Widths of the box filters that `tune-smoothing` chose; None if it never ran.

        Raises:
            UserError: it chose them for another step: other weights jitter in another way.
        """
        if self.smoothing is None:
            return None
        if self.smoothing.step != self.step:
            raise UserError(
                f"{self.source}: the smoothing widths were tuned on step {self.smoothing.step}, "
                f"this is step {self.step}; run `maven-jax tune-smoothing` for it, or give widths"
            )
        return self.smoothing.frames

    @property
    def module(self) -> nn.Module:
        return experiment.create_model(self.config, self.trained_on.target_mean)

    @property
    def transform(self) -> InputTransform:
        return experiment.build_transform(self.config)

    def example(self, rows: int = 1) -> Batch:
        """A batch of zeros (NumPy) as the store's would be: windows of the recipe's length."""
        length, features, masks = self.config.data.window.length, {}, {}
        for name, spec in self.trained_on.modalities.items():
            frames = 1 if name in self.config.data.single_vector else length
            features[name] = np.zeros((rows, frames, spec.dim), spec.dtype)
            masks[name] = np.zeros((rows, frames), bool)
        return to_batch(
            {
                "features": features,
                "modality_masks": masks,
                "frame_mask": np.zeros((rows, length), bool),
                "targets": np.zeros((rows, length, 2), np.float32),
                "target_mask": np.zeros((rows, length), bool),
                "window": np.zeros(rows, np.int32),
            }
        )

    def function(self) -> Callable[[Weights, Batch], Float[Array, "b t 2"]]:
        """(weights, batch) -> valence and arousal in [-1, 1]; pure, to be jitted."""
        rules = logical_rules(fsdp=False)
        return predict_function(self.module, self.transform, rules=rules, seed=self.config.seed)

    def check(self) -> TrainedModel:
        """Itself, if the weights are those of the recipe's model on these features.

        Raises:
            UserError: a name or a shape differs, or a value is not finite.
        """
        try:
            wanted = _leaves(self._abstract_weights())
            _ = self.transform, self.dimensions
        except UserError as error:
            raise UserError(f"{self.source}: {error}") from None
        except Exception as error:  # of whatever a value that is none for it runs into
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{self.source}: the recipe's model cannot be built ({line[:200]})"
            ) from error
        found = _leaves(self.weights)
        faults = [f"lacks {name}" for name in sorted(wanted.keys() - found.keys())]
        faults += [f"has {name}, the model has not" for name in sorted(found.keys() - wanted)]
        for name in sorted(wanted.keys() & found.keys()):
            there, here = found[name], wanted[name]
            if there.shape != here.shape or there.dtype != here.dtype:
                faults.append(
                    f"has {name} {there.dtype}{list(there.shape)}, "
                    f"the model's is {here.dtype}{list(here.shape)}"
                )
            elif np.issubdtype(there.dtype, np.floating) and not np.isfinite(there).all():
                faults.append(f"has values in {name} that are not finite")
        if faults:
            raise UserError(f"{self.source}: the weights: {listing(faults, 3, '; ')}")
        return self

    def _abstract_weights(self) -> Weights:
        dims = {m: spec.dim for m, spec in self.trained_on.modalities.items()}
        zeros = {m: jnp.zeros(dim, jnp.float32) for m, dim in dims.items()}
        statistics = FeatureStatistics(mean=zeros, std=zeros)
        module, example = self.module, self.example()
        return nn.meta.unbox(
            jax.eval_shape(
                lambda key, s: init_weights(module, example, s, key), jax.random.key(0), statistics
            )
        )


def _leaves(weights: Weights) -> dict[str, Any]:
    trees = {
        "params": weights.params,
        **weights.model_state,
        "mean": weights.statistics.mean,
        "std": weights.statistics.std,
    }
    return dict(flatten_dict(trees, sep="/"))


def open_model(path: Path, which: str = "best") -> TrainedModel:
    """The model of a workdir or of a bundle.

    Args:
        path: the workdir of a run or of `maven-jax convert`, or what `maven-jax export` wrote.
        which: of a workdir: `best` (by validation ccc), `latest` or a step.

    Raises:
        UserError: neither is there, it is damaged, or its parts do not fit each other.
    """
    path = Path(path)
    if bundle.is_bundle(path):
        return _from_bundle(bundle.open_bundle(path)).check()
    return _from_workdir(path, which).check()


def read_config(path: Path) -> Config:
    """The resolved recipe of a workdir or of a bundle.

    Raises:
        UserError: neither is there, or it is damaged.
    """
    if bundle.is_bundle(path):
        return bundle.open_bundle(path).config
    return read_record(path)[0]


def _from_bundle(parts: bundle.Bundle) -> TrainedModel:
    return TrainedModel(
        source=parts.folder,
        config=parts.config,
        trained_on=parts.trained_on,
        weights=weights_of(parts.arrays, str(parts.folder)),
        step=parts.step,
        scores=parts.scores,
        smoothing=parts.smoothing,
        record=parts.record,
    )


def _from_workdir(workdir: Path, which: str) -> TrainedModel:
    config, record = read_record(workdir)
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    try:
        step = checkpoints.resolve(which)
        found = checkpoints.read_weights(step)
    finally:
        checkpoints.close()
    trained_on, statistics = _described(workdir, config, record, found.get("statistics"))
    return TrainedModel(
        source=workdir,
        config=config,
        trained_on=trained_on,
        weights=Weights(
            params=found["params"], model_state=found["model_state"], statistics=statistics
        ),
        step=step,
        scores=_scores(workdir, step),
        smoothing=read_smoothing(workdir),
        record={k: record[k] for k in bundle.RECORDED if k in record},
    )


def _described(
    workdir: Path, config: Config, record: Mapping[str, Any], statistics: Any
) -> tuple[TrainedOn, FeatureStatistics]:
    """What a run was trained on, by its record; of older and of converted runs, by their store."""
    released = record.get("statistics") == "store"
    if "trained_on" in record and statistics is not None:
        described = TrainedOn.from_json(record["trained_on"], str(workdir / CONFIG_FILE))
        return described, FeatureStatistics(**statistics)
    try:
        store = experiment.open_store(config)
    except UserError as error:
        raise UserError(
            f"{workdir}: does not say itself what it was trained on, and its store is not there "
            f"({error})"
        ) from None
    experiment.check_features(store, record["features"], identity=not released)
    if statistics is None:
        known = experiment.training_moments(store, config)
        names = tuple(config.data.modalities)
        statistics = {
            "mean": {m: np.asarray(known[m].mean, np.float32) for m in names},
            "std": {m: np.asarray(known[m].std, np.float32) for m in names},
        }
    return TrainedOn.of_store(store, config), FeatureStatistics(**statistics)


def _scores(workdir: Path, step: int) -> dict[str, dict[str, Any]]:
    """The evaluations that were of this step."""
    scores = {}
    for path in sorted((workdir / "eval").glob("*.json")):
        try:
            written = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(written, dict) and written.get("step") == step:
            scores[path.stem] = {k: v for k, v in written.items() if k != "videos"}
    return scores
