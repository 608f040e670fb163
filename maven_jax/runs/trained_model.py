"""A trained model as prediction needs it: from the workdir of a run, or from an exported bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from maven_jax.data.transforms import FeatureStatistics, InputTransform
from maven_jax.errors import UserError, listing
from maven_jax.evaluation.calibration import Calibration, read_calibration
from maven_jax.evaluation.step import predict_function
from maven_jax.experiment import (
    Experiment,
    check_features,
    create_model,
    example_batch,
    input_transform,
    trained_dimensions,
)
from maven_jax.inputs import read_json
from maven_jax.models.extra_heads import output_names, predicted_beside
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runs import bundle
from maven_jax.runs.bundle import weights_of
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.training_data import TrainingData
from maven_jax.runs.workdir import CONFIG_FILE, read_record
from maven_jax.runtime.sharding import logical_rules
from maven_jax.state import Weights, abstract_weights
from maven_jax.store.schema import ExtraTarget
from maven_jax.types import Batch


@dataclass(frozen=True)
class TrainedModel:
    """A model with all that prediction needs, and what describes it.

    Attributes:
        source: the workdir or bundle that it comes from.
        config: the resolved recipe.
        trained_on: features and encoders; a model understands no others.
        weights: NumPy arrays.
        step: training steps taken.
        scores: split -> what an evaluation of this step wrote, without single videos.
        calibration: what `tune` chose, for this step or another; None if it never ran.
        record: versions, commit, overrides, what it was converted from (JSON).
    """

    source: Path
    config: Config
    trained_on: TrainingData
    weights: Weights
    step: int
    scores: dict[str, dict[str, Any]]
    calibration: Calibration | None
    record: dict[str, Any]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Those of valence and arousal that were trained."""
        return trained_dimensions(self.config)

    @property
    def label(self) -> str:
        """Why its numbers mean nothing for videos of people; "" if they may mean something."""
        if not self.step and "converted" not in self.record:
            return "untrained weights"
        untrained = [m for m, spec in self.trained_on.modalities.items() if spec.untrained]
        if untrained:
            names = ", ".join(untrained)
            return f"features of untrained encoders ({names}): no claim beyond the training corpus"
        return ""

    def say_label(self) -> None:
        """Says why its numbers mean nothing, if they do not."""
        if self.label:
            say(f"note: {self.source}: {self.label}")

    def tuned(self) -> Calibration | None:
        """What `maven-jax tune` chose; None if it never ran.

        Raises:
            UserError: it chose for another step: other weights jitter in another way.
        """
        if self.calibration is not None and self.calibration.step != self.step:
            raise UserError(
                f"{self.source}: the calibration was tuned on step {self.calibration.step}, "
                f"this is step {self.step}; run `maven-jax tune` for it, or do without"
            )
        return self.calibration

    @property
    def module(self) -> nn.Module:
        return create_model(self.config, self.trained_on.target_mean)

    @property
    def transform(self) -> InputTransform:
        return input_transform(self.config)

    def example(self, rows: int = 1) -> Batch:
        """A batch of zeros (NumPy) as a store would give it; see `example_batch`."""
        return example_batch(self.config, self.trained_on.modalities, rows)

    @property
    def extra_targets(self) -> tuple[ExtraTarget, ...]:
        """What it predicts beside valence and arousal, in the order of its outputs."""
        return predicted_beside(self.config)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the columns of its outputs are called."""
        return output_names(self.extra_targets)

    def function(self) -> Callable[[Weights, Batch], Float[Array, "b t _"]]:
        """(weights, batch) -> `outputs`: numbers in [-1, 1], probabilities; pure, to be jitted."""
        return predict_function(
            self.module,
            self.transform,
            rules=logical_rules(fsdp=False),
            seed=self.config.seed,
            extra=self.extra_targets,
        )

    def check(self) -> TrainedModel:
        """The model itself, if its weights fit the recipe's model on these features.

        Raises:
            UserError: a name or a shape differs, or a value is not finite.
        """
        try:
            model_shape = _leaves(self._abstract_weights())
            _ = self.transform, self.dimensions
        except UserError as error:
            raise UserError(f"{self.source}: {error}") from None
        except Exception as error:  # a value of the wrong kind may fail anywhere
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{self.source}: the recipe's model cannot be built ({line[:200]})"
            ) from error
        saved = _leaves(self.weights)
        faults = [f"lacks {name}" for name in sorted(model_shape.keys() - saved.keys())]
        faults += [f"has {name}, the model has not" for name in sorted(saved.keys() - model_shape)]
        for name in sorted(model_shape.keys() & saved.keys()):
            array, expected = saved[name], model_shape[name]
            if array.shape != expected.shape or array.dtype != expected.dtype:
                faults.append(
                    f"has {name} {array.dtype}{list(array.shape)}, "
                    f"the model's is {expected.dtype}{list(expected.shape)}"
                )
            elif np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                faults.append(f"has values in {name} that are not finite")
        if faults:
            raise UserError(f"{self.source}: the weights: {listing(faults, 3, '; ')}")
        return self

    def _abstract_weights(self) -> Weights:
        dims = {m: spec.dim for m, spec in self.trained_on.modalities.items()}
        zeros = {m: jnp.zeros(dim, jnp.float32) for m, dim in dims.items()}
        statistics = FeatureStatistics(mean=zeros, std=zeros)
        return nn.meta.unbox(abstract_weights(self.module, self.example(), statistics))


def _leaves(weights: Weights) -> dict[str, Any]:
    trees = {
        "params": weights.params,
        **weights.model_state,
        "mean": weights.statistics.mean,
        "std": weights.statistics.std,
    }
    return dict(flatten_dict(trees, sep="/"))


def open_model(path: Path | str, which: str = "best") -> TrainedModel:
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
        calibration=parts.calibration,
        record=parts.record,
    )


def _from_workdir(workdir: Path, which: str) -> TrainedModel:
    config, record = read_record(workdir)
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    try:
        step = checkpoints.resolve(which)
        variables = checkpoints.read_weights(step)
    finally:
        checkpoints.close()
    trained_on, statistics = _training_data(workdir, config, record, variables.get("statistics"))
    return TrainedModel(
        source=workdir,
        config=config,
        trained_on=trained_on,
        weights=Weights(
            params=variables["params"],
            model_state=variables["model_state"],
            statistics=statistics,
        ),
        step=step,
        scores=_scores(workdir, step),
        calibration=read_calibration(workdir),
        record={k: record[k] for k in bundle.RECORDED if k in record},
    )


def _training_data(
    workdir: Path, config: Config, record: Mapping[str, Any], statistics: Any
) -> tuple[TrainingData, FeatureStatistics]:
    """What a run was trained on, by its record; for older and converted runs, by their store."""
    released = record.get("statistics") == "store"
    if "trained_on" in record and statistics is not None:
        data = TrainingData.from_json(record["trained_on"], str(workdir / CONFIG_FILE))
        return data, FeatureStatistics(**statistics)
    try:
        experiment = Experiment.of(config)
    except UserError as error:
        raise UserError(
            f"{workdir}: does not say itself what it was trained on, and its store is not there "
            f"({error})"
        ) from None
    check_features(experiment.store, record["features"], identity=not released)
    if statistics is None:
        moments = {m: experiment.moments[m] for m in experiment.modalities}
        statistics = {
            "mean": {m: np.asarray(v.mean, np.float32) for m, v in moments.items()},
            "std": {m: np.asarray(v.std, np.float32) for m, v in moments.items()},
        }
    return TrainingData.of(experiment), FeatureStatistics(**statistics)


def _scores(workdir: Path, step: int) -> dict[str, dict[str, Any]]:
    """The evaluations that were of this step."""
    scores = {}
    for path in sorted((workdir / "eval").glob("*.json")):
        try:
            written = read_json(path, "scores")
        except UserError as error:
            say(f"note: not taken along: {error}")
            continue
        if written.get("step") == step:
            scores[path.stem] = {k: v for k, v in written.items() if k != "videos"}
    return scores
