"""Ridge's solution for a network that is to stand beside it, before the network's first step."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from maven_jax import recipes
from maven_jax.experiment import Experiment
from maven_jax.models.beside_ridge import SOLUTION, RidgeBeside
from maven_jax.models.registry import ridge_beside
from maven_jax.progress import meter, say, timed
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.state import Weights
from maven_jax.training.closed_form import ClosedForm, ClosedFormFit, Solution


def fit_beside(weights: Weights, experiment: Experiment, watchdog: Watchdog) -> Weights:
    """Fresh weights with ridge's solution of the training split, if the recipe has it.

    The pass over the store is that of `closed_form`, on the windows of the network. It is not saved
    on its way: a run that is killed before its first checkpoint begins anew.

    Args:
        weights: fresh ones, on the devices.
        experiment: what is trained, see `models.beside_ridge.RidgeBeside`.
        watchdog: is told of every batch.

    Returns:
        The weights, laid out as they were.

    Raises:
        UserError: no frame is annotated.
    """
    section = ridge_beside(recipes.plain(experiment.config.model).get("ridge"))
    if section is None:
        return weights
    solution = linear_solution(experiment, section, watchdog, "beside the network, ")
    say(solution.describe())
    solved: dict[str, Any] = {"kernel": solution.kernel, "bias": solution.bias}
    placed = {
        name: jax.device_put(np.asarray(solved[name], old.dtype), old.sharding)
        for name, old in weights.model_state[SOLUTION].items()
    }
    return weights.replace(model_state={**weights.model_state, SOLUTION: placed})


def linear_solution(
    experiment: Experiment, section: RidgeBeside, watchdog: Watchdog, purpose: str
) -> Solution:
    """Ridge's solution on the windows of a network's recipe, and how well it predicts.

    Args:
        experiment: what is trained.
        section: of the ridge.
        watchdog: is told of every batch.
        purpose: begins the line that describes it.

    Raises:
        UserError: no frame is annotated.
    """
    config = recipes.from_json(experiment.config.to_dict())
    config.model = dict(name="ridge", widths=section.widths)
    config.loss.extra_targets = ()
    choice = ClosedForm("closed_form", section.penalties, section.frame_step, section.most_groups)
    linear = Experiment(config, experiment.store, mesh=experiment.mesh)
    work = ClosedFormFit(linear, choice)
    say(f"{purpose}{work.describe()}")
    state = work.fresh()
    with meter("summing", len(work), "batches") as progress:
        for step, (group, batch) in enumerate(work.batches(0), 1):
            watchdog.beat(step, "summing")
            state = work.add(state, group, batch)
            progress.advance()
    with watchdog.paused("solving"), timed("solving"):
        return work.solution(state)
