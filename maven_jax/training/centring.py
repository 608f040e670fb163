"""Which share of each recording's mean is taken from its features, by recordings left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.models.beside_ridge import RidgeBeside
from maven_jax.progress import say
from maven_jax.runs.workdir import CONFIG_FILE, read_record
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.training.beside_ridge import linear_solution

# What another share than the first has to gain, in CCC.
_LEAST_GAIN = 0.01


def settle_centre(experiment: Experiment, workdir: Path, watchdog: Watchdog) -> None:
    """Of several shares in `data.centre`, keeps one in the experiment's recipe.

    It is the one with which ridge predicts training recordings best that it was not fitted on (see
    `closed_form.solve`), and the first unless another gains a hundredth. A run that continues keeps
    its own. There is nothing to choose for features of this library's encoders, or of one frame a
    video; the first share stays.

    Args:
        experiment: what is trained; its recipe has ridge, alone or beside the network.
        workdir: of the run.
        watchdog: is told of every batch.

    Raises:
        UserError: several shares, and no ridge to choose by; or one that concerns no feature.
    """
    config = experiment.config
    shares = tuple(config.data.centre)
    if len(shares) == 1:
        if shares[0] and not experiment.imported:
            raise UserError(
                f"config.data.centre={shares[0]:g}: concerns features made elsewhere, and "
                f"{experiment.store.path} has none; predict knows no mean before a video's end"
            )
        return
    if (workdir / CONFIG_FILE).exists():
        config.data.centre = tuple(read_record(workdir)[0].data.centre)
        return
    config.data.centre = shares[:1]
    longest = max(entry.num_frames for entry in experiment.entries(config.data.train_split))
    if not experiment.imported or longest == 1:
        return
    section, scores = _ridge(experiment, shares), []
    for share in shares:
        config.data.centre = (share,)
        solution = linear_solution(experiment, section, watchdog, f"data.centre={share:g}, ")
        scores.append(np.nan_to_num(solution.left_out).max(0).mean())
    best = int(np.argmax(scores))
    best = best if scores[best] > scores[0] + _LEAST_GAIN else 0
    config.data.centre = (shares[best],)
    tried = ", ".join(f"{share:g}: {score:.3f}" for share, score in zip(shares, scores))
    say(
        f"data.centre: {shares[best]:g} of each recording's mean is taken from its features "
        f"(ccc of recordings left out by share: {tried})"
    )


def _ridge(experiment: Experiment, shares: tuple[float, ...]) -> RidgeBeside:
    """What chooses: the recipe's ridge, whatever its weight."""
    config = experiment.config
    if section := config.model.get("ridge"):
        return RidgeBeside(**recipes.plain(section))
    if config.model.name != "ridge":
        raise UserError(
            f"config.data.centre={shares!r}: several shares are chosen from by "
            "ridge (config.model.ridge), which this recipe lacks; give one"
        )
    chosen = recipes.plain(config.optimizer)
    keys = ("penalties", "frame_step", "most_groups")
    return RidgeBeside(weight=0, widths=config.model.widths, **{k: chosen[k] for k in keys})
