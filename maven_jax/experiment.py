"""A recipe made into the parts of a run; what training, evaluation and prediction share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from maven_jax import recipes, state
from maven_jax.data.centred import CentredStore, made_elsewhere
from maven_jax.data.folds import cut, digest_of, fold_entries, fold_statistics, is_official
from maven_jax.data.offsets import directions_between
from maven_jax.data.pipeline import FrameStore, WindowSource, to_batch
from maven_jax.data.transforms import FeatureStatistics, InputTransform
from maven_jax.data.windows import Windows, make_windows, padded_lengths
from maven_jax.errors import UserError
from maven_jax.evaluation.split_predictor import SplitPredictor
from maven_jax.evaluation.step import make_predict_step
from maven_jax.models import registry
from maven_jax.models.extra_heads import predicted_beside, section_of, targets_asked_for
from maven_jax.recipes import Config
from maven_jax.runtime import hosts
from maven_jax.runtime.sharding import Rules, logical_rules, make_mesh
from maven_jax.state import TrainState, Weights
from maven_jax.store.moments import Moments
from maven_jax.store.reader import Store
from maven_jax.store.schema import ExtraTarget, ModalitySpec, VideoEntry
from maven_jax.types import DIMENSIONS, Batch


class Experiment:
    """A recipe on a store, and the parts that both make; each is built when first asked for.

    Attributes:
        config: the recipe, with its modalities filled in.
        store: the features.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        mesh: Mesh | None = None,
        target_mean: tuple[float, float] | None = None,
    ):
        """Takes an open store; `of` opens the recipe's.

        Args:
            config: a recipe.
            store: holds the recipe's modalities; all that it holds, if the recipe names none.
            mesh: in place of the recipe's.
            target_mean: mean valence and arousal in training; None for those of this store.

        Raises:
            UserError: the store lacks a modality.
        """
        self.config, self.store = config, store
        self._mesh, self._target_mean = mesh, target_mean
        if not config.data.modalities:
            config.data.modalities = tuple(store.modalities)
        for key in ("modalities", "single_vector"):
            for name in config.data[key]:
                store.check_modality(name, f"config.data.{key}: ")
        if "extra_targets" not in config.model and (
            targets := targets_asked_for(config, store.extra_targets)
        ):
            with config.unlocked():
                config.model.extra_targets = section_of(targets)

    @classmethod
    def of(cls, config: Config) -> Experiment:
        """The recipe on its store.

        Raises:
            UserError: there is no such store, or it lacks a modality.
        """
        return cls(config, Store(config.data.store))

    def on_this_machine(self) -> Experiment:
        """The same on all devices of this machine, for weights that are trained: they fit any mesh.

        Evaluation batches are rounded up to a multiple of the devices.
        """
        config = recipes.from_json(self.config.to_dict())
        config.mesh.update(data=-1, model=1)
        here = Experiment(config, self.store, target_mean=self._target_mean)
        devices = here.mesh.shape["data"]
        config.eval.batch_size = -(-config.eval.batch_size // devices) * devices
        return here

    # Devices.

    @cached_property
    def mesh(self) -> Mesh:
        if self._mesh is not None:
            return self._mesh
        sizes = {k: v for k, v in self.config.mesh.items() if k != "fsdp"}
        return recipes.call(make_mesh, sizes, "mesh")

    @cached_property
    def rules(self) -> Rules:
        """Logical axis -> mesh axis."""
        return logical_rules(self.config.mesh.fsdp)

    # Data.

    @property
    def modalities(self) -> dict[str, ModalitySpec]:
        """Those of the recipe, in the order in which the model takes them."""
        return {name: self.store.modalities[name] for name in self.config.data.modalities}

    def entries(self, split: str) -> tuple[VideoEntry, ...]:
        """The videos of a split; of the fold's, if the recipe has one.

        Raises:
            UserError: no such split or fold.
        """
        if self.config.data.fold is not None and split in ("train", "validation"):
            return self._fold[split]
        self.store.check_split(split)
        return self.store.videos(split)

    @cached_property
    def _fold(self) -> dict[str, tuple[VideoEntry, ...]]:
        data = self.config.data
        return fold_entries(self.store, data.fold, data.folds, data.fold_groups)

    @property
    def holds_back(self) -> bool:
        """Whether a fold holds videos of the store's training split back."""
        data = self.config.data
        return not is_official(data.fold, data.folds, data.fold_groups)

    @property
    def held_out(self) -> str | None:
        """A digest of the names of the videos that the recipe's fold holds out; None without."""
        return None if self.config.data.fold is None else digest_of(self._fold["validation"])

    def check_held_out(self, trained: str | None) -> None:
        """Raises UserError if the fold holds out other videos than it did in training.

        Args:
            trained: `held_out` in training; None if it is not known.
        """
        data = self.config.data
        if data.fold is not None and trained not in (None, self.held_out):
            raise UserError(
                f"config.data.fold={data.fold} holds out other videos than when the run was "
                f"trained; {data.fold_groups or self.store.path} was changed since"
            )

    def windows(self, split: str, *, train: bool) -> Windows:
        """The windows of a split: as recipe `data.window` says; `eval.hop` apart outside training.

        Raises:
            UserError: the store has no such split, or impossible window sizes.
        """
        section = recipes.plain(self.config.data.window)
        if not train:
            section["hop"] = self.config.eval.hop
        entries = self.entries(split)
        return recipes.call(make_windows, section, "data.window", entries=entries, annotated=train)

    def source(self, windows: Windows, store: Store | None = None) -> WindowSource:
        """What reads some windows, of this store or of another with the same modalities."""
        single_vector: dict[str, Any] = dict(self.config.data.single_vector)
        names, frames = tuple(self.modalities), self.frames(store)
        return WindowSource(frames, windows, names, single_vector, self.extra_targets)

    @property
    def imported(self) -> tuple[str, ...]:
        """The modalities with features made elsewhere, which `data.centre` concerns."""
        return made_elsewhere(self.modalities, self.config.data.single_vector)

    @property
    def centre(self) -> float:
        """The share of each video's mean that is taken from its `imported` features."""
        return float(self.config.data.centre[0]) if self.imported else 0.0

    def frames(self, store: Store | None = None) -> FrameStore:
        """This store, or another with the same modalities, as it is read: centred, if asked for."""
        store = store or self.store
        return CentredStore(store, self.centre, self.imported) if self.centre else store

    @cached_property
    def extra_targets(self) -> dict[str, ExtraTarget]:
        """The targets beside valence and arousal that the model has heads for."""
        return {target.name: target for target in predicted_beside(self.config)}

    @property
    def extra_weights(self) -> dict[ExtraTarget, float]:
        """Extra target -> its weight in the loss."""
        names, weights = self.config.loss.extra_targets, self.config.loss.extra_weights
        by_name = dict(zip(names, weights * len(names) if len(weights) == 1 else weights))
        rest = by_name.get("*", 0.0)
        return {t: float(by_name.get(n, rest)) for n, t in self.extra_targets.items()}

    def example(self) -> Batch:
        """A batch of one window, for its shapes; see `example_batch`."""
        batch = example_batch(self.config, self.modalities)
        shape = batch.frame_mask.shape
        return batch.replace(
            extra_targets={
                n: np.zeros((*shape, t.width), np.float32) for n, t in self.extra_targets.items()
            },
            extra_masks={n: np.zeros(shape, bool) for n in self.extra_targets},
        )

    @cached_property
    def moments(self) -> Mapping[str, Moments]:
        """Moments of the store's training videos, or of those of the recipe's fold."""
        if not self.holds_back:
            return self.store.statistics
        return fold_statistics(self.store, self._fold["train"])

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Mean and standard deviation of the training features, on the device."""
        moments = {m: self.moments[m] for m in self.modalities}
        return FeatureStatistics(
            mean={m: jnp.asarray(v.mean, jnp.float32) for m, v in moments.items()},
            std={m: jnp.asarray(v.std, jnp.float32) for m, v in moments.items()},
        )

    @property
    def target_mean(self) -> tuple[float, float]:
        """Mean valence and arousal in training."""
        if self._target_mean is not None:
            return self._target_mean
        valence, arousal = self.moments["targets"].mean
        return float(valence), float(arousal)

    # The model.

    @cached_property
    def model(self) -> nn.Module:
        """See `create_model`."""
        return create_model(self.config, self.target_mean)

    @cached_property
    def transform(self) -> InputTransform:
        return input_transform(self.config)

    @cached_property
    def training_transform(self) -> InputTransform:
        """The transform with what it takes from the training videos.

        Raises:
            UserError: the store lacks the sums of a training video.
        """
        if not self.transform.video_offset_std:
            return self.transform
        floats = [name for name, spec in self.modalities.items() if spec.dtype != "uint8"]
        videos = [self.store.video_sums(e) for e in self.entries(self.config.data.train_split)]
        directions = directions_between(videos, {m: self.moments[m] for m in floats})
        for name in self.imported:  # they differ by so much less
            directions[name] = (1 - self.centre) * directions[name]
        return dataclasses.replace(self.transform, directions=directions)

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """See `trained_dimensions`."""
        return trained_dimensions(self.config)

    @cached_property
    def abstract_weights(self) -> Weights:
        """The shapes of the weights, boxed with their logical axes."""
        return state.abstract_weights(self.model, self.example(), self.statistics)

    def fresh_weights(self) -> tuple[Weights, Any]:
        """Weights drawn by the recipe's seed on the devices that hold them, and their shardings."""
        return state.create_weights(
            self.model, self.example(), self.statistics, self.mesh, self.rules, self.config.seed
        )

    def fresh_state(self, tx: optax.GradientTransformation, shardings: TrainState) -> TrainState:
        """The state in which a training with an optimiser begins; weights as `fresh_weights`."""
        return state.create_state(
            self.model,
            tx,
            self.example(),
            self.statistics,
            shardings,
            self.mesh,
            self.rules,
            self.config.seed,
            self.averages,
        )

    @property
    def averages(self) -> bool:
        """Whether an average of the parameters over the steps predicts."""
        return self.config.train.ema_decay > 0

    def predictor(self, split: str, shardings: Any, extra: bool = False) -> SplitPredictor:
        """A predictor of all videos of a split.

        Args:
            split: of the store.
            shardings: of the weights that it will be given.
            extra: whether it predicts the extra targets too.

        Raises:
            UserError: the store has no such split, or its windows leave frames out.
        """
        config = self.config
        windows = self.windows(split, train=False)
        # Some models are tied to the number of frames that they were trained with.
        tied = "window_length" in config.model
        lengths = padded_lengths("" if tied else config.data.window.kind, windows.length)
        extra_targets = self.extra_targets if extra else {}
        step = make_predict_step(
            self.model,
            self.transform,
            mesh=self.mesh,
            rules=self.rules,
            shardings=shardings,
            seed=config.seed,
            extra=tuple(extra_targets.values()),
        )
        return SplitPredictor(
            step,
            self.frames(),
            windows,
            modalities=tuple(self.modalities),
            single_vector=dict(config.data.single_vector),
            batch_size=config.eval.batch_size,
            num_threads=config.data.num_threads,
            mesh=self.mesh,
            blend=config.eval.blend,
            smooth_frames=tuple(config.eval.smooth_frames),
            lengths=lengths,
            extra_targets=extra_targets,
        )

    def describe(self) -> list[str]:
        """Lines that say what runs: devices, data, and whether the features mean anything."""
        modalities = self.modalities
        widths = ", ".join(f"{name} ({spec.dim})" for name, spec in modalities.items())
        lines = [
            hosts.describe(self.mesh, self.config.train.batch_size),
            f"store {self.store.path}: {widths}",
        ]
        if self.extra_targets:
            learned = ", ".join(f"{t.name} ({t.kind})" for t in self.extra_targets.values())
            lines.append(f"learned beside valence and arousal: {learned}")
        untrained = ", ".join(name for name, spec in modalities.items() if spec.untrained)
        if untrained:
            lines.append(f"note: the encoders of {untrained} are untrained (random weights)")
        return [*lines, *self._describe_fold()]

    def _describe_fold(self) -> list[str]:
        data = self.config.data
        if not self.holds_back:
            return []
        made = cut(self.store, data.folds, data.fold_groups)
        train, held_out = (
            f"{len(e)} videos ({sum(v.num_annotated for v in e):,} annotated frames)"
            for e in (self._fold["train"], self._fold["validation"])
        )
        number = f"fold {data.fold} of 0 to {len(made.parts) - 1}"
        line = f"{number}: trains on {train}, holds out {held_out}"
        return [line, *(f"note: {note}" for note in made.notes)]


def open_store(recorded: str, given: str | None) -> Store:
    """The store that the user names, or else the one that a run was trained on.

    Args:
        recorded: as the run's recipe names it.
        given: by `--store`; None for the run's own.

    Raises:
        UserError: no store there.
    """
    if given is None and not Path(recorded).exists():
        from_there = "" if Path(recorded).is_absolute() else " from the folder that we are in"
        raise UserError(
            f"{recorded}: the store that the run was trained on is not there{from_there}; "
            "--store names it"
        )
    return Store(recorded if given is None else given)


def feature_kinds(modalities: Mapping[str, ModalitySpec]) -> dict[str, dict[str, Any]]:
    """What has to be the same in another store for a model to understand it: JSON."""
    return {
        name: {"dim": m.dim, "encoder": m.spec.get("encoder"), "sha256": m.spec.get("sha256")}
        for name, m in modalities.items()
    }


def check_features(
    store: Store, trained_on: Mapping[str, Mapping[str, Any]], *, identity: bool = True
) -> None:
    """Raises UserError if a store's features are not of the kind that a model was trained on.

    Args:
        store: whose features the model is to take.
        trained_on: `feature_kinds` of those it was trained on.
        identity: compare encoders and their weights too, not the widths alone.
    """
    for name, kind in feature_kinds({m: store.modalities[m] for m in trained_on}).items():
        expected = trained_on[name]
        if kind["dim"] != expected["dim"]:
            raise UserError(
                f"{store.path}: {name} is {kind['dim']} wide there, "
                f"the model takes {expected['dim']}"
            )
        if identity and kind != expected:
            raise UserError(
                f"{store.path}: {name} comes from another encoder or other weights than those "
                f"the model was trained on ({kind['encoder']} {str(kind['sha256'])[:12]}, "
                f"not {expected['encoder']} {str(expected['sha256'])[:12]})"
            )


def example_batch(config: Config, modalities: Mapping[str, ModalitySpec], rows: int = 1) -> Batch:
    """A batch of zeros (NumPy), in shapes and types as a store with these modalities gives it.

    Args:
        config: the recipe: windows of its length, one vector for modalities in `single_vector`.
        modalities: that the model takes, in its order.
        rows: windows of the batch.
    """
    length = config.data.window.length
    features, masks = {}, {}
    for name, spec in modalities.items():
        frames = 1 if name in config.data.single_vector else length
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


def create_model(config: Config, target_mean: Sequence[float]) -> nn.Module:
    """The model of a recipe.

    Args:
        config: the recipe.
        target_mean: of valence and arousal in training.

    Raises:
        UserError: unknown name, or a key that the model does not have.
    """
    section = recipes.plain(config.model)
    registry.check_keys(section)
    name = section.pop("name")
    modalities = tuple(config.data.modalities)
    with registry.errors_of_model():
        return registry.create(name, modalities=modalities, target_mean=target_mean, **section)


def input_transform(config: Config) -> InputTransform:
    """What a recipe does to features before its model."""
    return recipes.call(InputTransform, config.inputs, "inputs", directions=None)


def trained_dimensions(config: Config) -> tuple[str, ...]:
    """The dimensions with a weight in the loss: those that the run is scored on.

    Raises:
        UserError: the loss weighs a dimension that the model does not predict.
    """
    weights = tuple(config.loss.dimension_weights)
    trained = tuple(name for name, weight in zip(DIMENSIONS, weights) if weight)
    model = config.model.get("fusion", config.model)
    predicted = tuple(model.get("dimensions", DIMENSIONS))
    missing = [name for name in trained if name not in predicted]
    if missing:
        raise UserError(
            f"config.loss.dimension_weights={weights} trains {', '.join(missing)}, which a model "
            f"with config.model.dimensions={predicted} does not predict"
        )
    return trained
