"""Staged training: groups of parameters start frozen and join in one after the other.

RJCMA (ABAW6, 2024) trains its fusion on frozen backbones; whenever the learning rate has shrunk as
far as it may without a better validation score, the best weights so far are put back and one more
group of backbone layers trains along. `train.stages` names these groups by regular expressions; a
run without any has one stage, in which everything trains.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.state import TrainState, Weights, abstract_state, count_parameters
from maven_jax.training.losses import make_extra_loss, make_loss
from maven_jax.training.optimizer import Plateau, make_optimizer
from maven_jax.training.step import make_train_step
from maven_jax.types import Batch


class Groups:
    """Which stage each parameter starts to train in.

    Stage 0 trains what no pattern matches, stage k the first k patterns' parameters too. A
    parameter belongs to the first pattern that is found anywhere in its path (`re.search`; `^`
    and `$` tie a pattern to the ends).

    Args:
        patterns: of `train.stages`.
        params: the model's parameters or their shapes.

    Raises:
        UserError: not a regular expression, one that matches no further parameter, or nothing
            remains for the first stage.
    """

    def __init__(self, patterns: Sequence[str], params: Any):
        self._patterns = []
        for pattern in patterns:
            try:
                self._patterns.append(re.compile(pattern))
            except re.error as error:
                raise UserError(f"config.train.stages: {pattern!r}: {error}") from error
        paths = list(flatten_dict(params, sep="/"))
        groups = {self._group(path) for path in paths}
        for i, pattern in enumerate(patterns, 1):
            if i not in groups:
                modules = sorted({path.split("/")[0] for path in paths})
                raise UserError(
                    f"config.train.stages: no parameter is left for {pattern!r}; "
                    f"the paths begin with {', '.join(modules)}"
                )
        if patterns and 0 not in groups:
            raise UserError("config.train.stages leaves nothing for the first stage to train")

    def __len__(self) -> int:
        """The number of stages."""
        return len(self._patterns) + 1

    def _group(self, path: str) -> int:
        matches = (i for i, pattern in enumerate(self._patterns, 1) if pattern.search(path))
        return next(matches, 0)

    def trained(self, params: Any, stage: int) -> Any:
        """The parameters that train in a stage: `params` without the others."""
        flat = flatten_dict(params)
        trained = {k: v for k, v in flat.items() if self._group("/".join(k)) <= stage}
        return unflatten_dict(trained)


@dataclasses.dataclass
class StageControl:
    """Which stage a run is in, and when the next one begins; saved with every checkpoint.

    A stage ends when the plateau rule has shrunk the learning rate as far as it may and its
    patience is used up, or when `stop_patience` is. The last stage ends by `stop_patience` alone,
    and the run with it.

    Attributes:
        plateau: what shrinks the learning rate; its best score is that of the whole run.
        stages: how many there are.
        stage: the present one, from 0.
        first_step: the step that it began at.
        over: it ended with the last evaluation, and another one follows.
        stopped: the run ended with the last evaluation.
    """

    plateau: Plateau
    stages: int
    stage: int = 0
    first_step: int = 0
    over: bool = False
    stopped: bool = False

    def update(self, score: float) -> None:
        """Takes the score of one evaluation."""
        stop = self.plateau.update(score)
        last = self.stage == self.stages - 1
        self.over = not last and (stop or self.plateau.spent)
        self.stopped = last and stop

    def advance(self, step: int) -> None:
        """The next stage begins at `step`."""
        self.stage, self.first_step, self.over = self.stage + 1, step, False
        self.plateau.restart()

    def to_json(self) -> dict[str, Any]:
        """The part that changes, for a checkpoint."""
        return {
            "plateau": self.plateau.to_json(),
            "stage": {"number": self.stage, "first_step": self.first_step, "over": self.over},
            "stopped": self.stopped,
        }

    def from_json(self, saved: dict[str, Any]) -> None:
        self.plateau.from_json(saved["plateau"])
        stage = saved["stage"]
        self.stage, self.first_step, self.over = (
            stage["number"],
            stage["first_step"],
            stage["over"],
        )
        self.stopped = saved["stopped"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """What differs between stages.

    Attributes:
        number: from 0.
        tx: the optimiser; its state holds nothing of frozen parameters, its updates are of the
            others only.
        rate: step of the run -> scheduled learning rate.
        like: the training state's shapes and shardings.
        shardings: of the training state.
        step: (state, batch) -> (state, metrics), jitted.
        num_trained: number of values that train.
    """

    number: int
    tx: optax.GradientTransformation
    rate: Callable[[int], Any]
    like: TrainState
    shardings: TrainState
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
    num_trained: int

    def begin(self, step: Any, weights: Weights) -> TrainState:
        """The state in which the stage starts from some weights, the optimiser's being fresh."""
        init = jax.jit(self.tx.init, out_shardings=self.shardings.opt_state)
        scale = jax.device_put(jnp.ones((), jnp.float32), self.shardings.lr_scale)
        average = None
        if self.like.average is not None:
            average = jax.tree.map(jnp.copy, weights.params)
        return TrainState(step, weights, init(weights.params), scale, average)


class StageBuilder:
    """Makes the stages of a run.

    Args:
        experiment: what is trained.
        steps_per_epoch: steps in an epoch.
        total_steps: steps of the run.

    Raises:
        UserError: patterns that fit no parameters.
    """

    def __init__(self, experiment: Experiment, *, steps_per_epoch: int, total_steps: int):
        self._experiment = experiment
        self._steps_per_epoch, self._total = steps_per_epoch, total_steps
        self.params = nn.meta.unbox(experiment.abstract_weights.params)
        self.groups = Groups(experiment.config.train.stages, self.params)

    def build(self, number: int, first_step: int) -> Stage:
        """The stage `number`; its schedule, warm-up included, begins at `first_step`."""
        experiment, config = self._experiment, self._experiment.config
        (init, update), rate = recipes.call(
            make_optimizer,
            config.optimizer,
            "optimizer",
            steps_per_epoch=self._steps_per_epoch,
            total_steps=self._total - first_step,
        )

        def select(params: Any) -> Any:
            return self.groups.trained(params, number)

        tx = optax.GradientTransformation(lambda params: init(select(params)), update)
        like, shardings = abstract_state(
            experiment.abstract_weights,
            tx,
            experiment.mesh,
            experiment.rules,
            experiment.averages,
        )
        section = recipes.plain(config.loss)
        section = {k: v for k, v in section.items() if not k.startswith("extra_")}
        extra = experiment.extra_weights
        step = make_train_step(
            experiment.model,
            recipes.call(make_loss, section, "loss"),
            experiment.training_transform,
            tx,
            mesh=experiment.mesh,
            rules=experiment.rules,
            shardings=shardings,
            accumulate_steps=config.train.accumulate_steps,
            ema_decay=config.train.ema_decay,
            seed=config.seed,
            select=select,
            extra_loss=make_extra_loss(extra) if extra else None,
        )
        count = count_parameters(select(self.params))
        # Computed in advance: on the devices it would wait behind the queued steps.
        numbers = np.arange(max(self._total - first_step, 1))
        rates = np.asarray(jax.jit(jax.vmap(lambda s: jnp.asarray(rate(s), jnp.float32)))(numbers))
        return Stage(number, tx, lambda s: rates[s - first_step], like, shardings, step, count)

    def fresh(self, stage: Stage) -> TrainState:
        """A state with weights drawn at random."""
        return self._experiment.fresh_state(stage.tx, stage.shardings)

    def describe(self, stage: Stage) -> str:
        """One line: which stage of how many trains how much."""
        total = count_parameters(self.params)
        return (
            f"stage {stage.number + 1} of {len(self.groups)}: {stage.num_trained:,} of "
            f"{total:,} parameters train"
        )
