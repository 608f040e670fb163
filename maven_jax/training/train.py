"""Training a model by a recipe."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.evaluation.scores import score
from maven_jax.experiment import Experiment
from maven_jax.files import local_path
from maven_jax.progress import say, timed
from maven_jax.recipes import Config, check_sections
from maven_jax.runs import trackers
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import open_writer
from maven_jax.runs.workdir import FINISHED_FILE, check_free, claim
from maven_jax.runtime import hosts
from maven_jax.runtime.watchdog import Watchdog
from maven_jax.state import count_parameters
from maven_jax.training import closed_form
from maven_jax.training.beside_ridge import fit_beside
from maven_jax.training.feed import make_feed
from maven_jax.training.initial_weights import start_from
from maven_jax.training.mixing import open_mixed, training_source
from maven_jax.training.optimizer import Plateau
from maven_jax.training.profile import WARM_UP_STEPS, Profile, steps_to_record, steps_until
from maven_jax.training.reporter import Reporter
from maven_jax.training.sizes import settle_sizes
from maven_jax.training.stages import Stage, StageBuilder, StageControl


def train(
    config: Config,
    workdir: Path | str,
    overrides: list[str] | None = None,
    *,
    watchdog: Watchdog | None = None,
    preemption: hosts.Preemption | None = None,
    profile_steps: int = 0,
) -> dict[str, Any] | None:
    """Trains, evaluating as it goes, and continues where an earlier call in `workdir` stopped.

    Args:
        config: a recipe with the sections of `SECTIONS`.
        workdir: where config, metrics, checkpoints and plots go.
        overrides: what was set on the command line, for the record.
        watchdog: is told of progress; None for nobody.
        preemption: is asked before every step whether to save and stop; None for never.
        profile_steps: so many steps are recorded, once, into `profile` in the workdir.

    Returns:
        The scores of the last evaluation of the evaluation split; None if `preemption` ended it.

    Raises:
        UserError: a value of the recipe that cannot be, a workdir of another run or of a process
            that is at work, a loss that is not finite.
    """
    workdir = local_path(workdir)
    check_sections(config)
    if hosts.is_writer():
        check_free(workdir, config)
        trackers.check(config)
    with hosts.alone_as_writer(workdir, "train"):
        if hosts.is_writer():
            (workdir / FINISHED_FILE).unlink(missing_ok=True)
        return _train(
            Experiment.of(config),
            workdir,
            overrides or [],
            watchdog or Watchdog(math.inf),
            preemption or hosts.Preemption(),
            profile_steps,
        )


def _train(
    experiment: Experiment,
    workdir: Path,
    overrides: list[str],
    watchdog: Watchdog,
    preemption: hosts.Preemption,
    profile_steps: int,
) -> dict[str, Any] | None:
    """`train` in a folder that is its own.

    It reads in the order in which it runs: data, model, weights (fresh or restored), loop. One turn
    of the loop is: evaluate, save, begin the next stage, take the next batch, step.
    """
    config = experiment.config
    settle_sizes(experiment)
    for line in experiment.describe():
        say(line)

    if config.optimizer.get("name") == "closed_form":
        return closed_form.fit(experiment, workdir, overrides, watchdog, preemption)

    # Data.
    windows = experiment.windows(config.data.train_split, train=True)
    if config.train.batch_size % (config.train.accumulate_steps * experiment.mesh.shape["data"]):
        raise UserError("config.train.batch_size is not a multiple of accumulate_steps x mesh.data")
    mixed = open_mixed(experiment)
    source = training_source(experiment, windows, mixed)
    steps_per_epoch = max(math.ceil(source.epoch_windows / config.train.batch_size), 1)
    total_steps = math.ceil(config.train.num_epochs * steps_per_epoch)
    save_every = config.checkpoint.every_steps
    eval_every = max(round(config.train.eval_every_epochs * steps_per_epoch), 1)
    stops_every = (eval_every, save_every, config.train.log_every_steps)
    feed = make_feed(experiment, windows, source)

    # Model.
    steps = {"steps_per_epoch": steps_per_epoch, "total_steps": total_steps}
    builder = StageBuilder(experiment, **steps)
    plateau = recipes.call(Plateau, config.train.plateau, "train.plateau")
    control = StageControl(plateau, len(builder.groups))
    stage = builder.build(0, 0)
    predictor = experiment.predictor(config.data.eval_split, stage.shardings.weights)
    say(
        f"{config.model.name}: {count_parameters(builder.params):,} parameters; "
        f"{len(windows):,} windows of {windows.length} frames from {len(windows.entries)} videos, "
        f"{steps_per_epoch} steps per epoch, {total_steps} steps"
    )

    # Weights, fresh or restored.
    checkpoints = recipes.call(
        Checkpoints,
        config.checkpoint.keep,
        "checkpoint.keep",
        workdir=workdir,
        read_only=False,
    )
    start = checkpoints.newest_usable() or 0
    state: Any = None
    if not start:
        state = builder.fresh(stage)
        weights = fit_beside(state.weights, experiment, watchdog)
        weights = start_from(weights, experiment)
        average = None if state.average is None else jax.tree.map(jnp.copy, weights.params)
        state = state.replace(weights=weights, average=average)
    record = claim(workdir, experiment, mixed, overrides)
    if start:
        control.from_json(checkpoints.control(start))
        stage = builder.build(control.stage, control.first_step)
        state, position = checkpoints.restore(start, stage.like)
        feed.position.set_state(position)
        say(f"continuing from step {start} of {total_steps}")

    def compile_prediction(state: Any) -> None:
        with (
            watchdog.paused("compiling the prediction step"),
            jax.set_mesh(experiment.mesh),
            timed("compiling the prediction step"),
        ):
            predictor.compile(state.predicting)

    def compile_step(stage: Stage, state: Any) -> None:
        if len(builder.groups) > 1:
            say(builder.describe(stage))
        with jax.set_mesh(experiment.mesh), timed("compiling the training step"):
            feed.compile(stage.step, state)

    def next_stage(step: int, state: Any) -> tuple[Stage, Any]:
        best = checkpoints.best_step
        assert best is not None
        control.advance(step)
        stage = builder.build(control.stage, step)
        say(f"step {step}: the weights of step {best}, the best so far, are put back")
        weights = checkpoints.restore_weights(best, state.weights)
        return stage, stage.begin(state.step, weights)

    if control.over:
        stage, state = next_stage(start, state)
    compile_step(stage, state)
    writer = open_writer(config, workdir, start)
    report = Reporter(experiment, writer, start, **steps)
    to_record = range(0)
    if profile_steps:
        to_record = steps_to_record(start, profile_steps, total_steps, (eval_every, save_every))
        if not to_record:
            say(f"the run ends before step {start + WARM_UP_STEPS}: nothing is recorded")
    profile = Profile(workdir / "profile", to_record, watchdog)

    # Loop.
    scores: dict[str, Any] = {}
    pending: tuple[dict[str, Any], int] | None = None
    # However the loop ends, both write what they were given.
    with contextlib.closing(checkpoints), contextlib.closing(writer), profile:
        step = start
        while True:
            last = step == total_steps
            stops = not last and preemption.reached()
            evaluates = step > start and (last or step % eval_every == 0)
            saves = step > start and (stops or step % save_every == 0)
            if evaluates or saves:
                # A state is saved only once the loss that led to it is known to be finite.
                report.steps(step, stage.rate, pending)
                pending = None
            if evaluates:
                evaluating = functools.partial(watchdog.beat, step, "evaluating")
                with jax.set_mesh(experiment.mesh):
                    videos = predictor(state.predicting, beat=evaluating)
                scores, _ = score(videos, experiment.dimensions)
                control.update(scores["ccc"])
                state = state.replace(
                    lr_scale=jax.device_put(np.float32(plateau.scale), stage.shardings.lr_scale)
                )
                report.evaluation(step, scores, plateau.scale)
            if evaluates or saves:
                with watchdog.paused("saving"):
                    saved = control.to_json() | {"run": record}
                    metrics = {"ccc": scores["ccc"]} if evaluates else None
                    checkpoints.save(step, state, feed.position.get_state(), saved, metrics)
            if last or control.stopped:
                break
            if stops:
                with watchdog.paused("saving"):
                    checkpoints.wait()
                saved = f"saved at step {step}" if step else "no step was taken yet"
                say(f"stopped by SIGTERM: {saved}; the same command continues")
                return None
            if control.over:
                with watchdog.paused("building the next stage"):
                    checkpoints.wait()
                    stage, state = next_stage(step, state)
                    compile_step(stage, state)
            watchdog.beat(step, "reading its batch")
            waiting = time.monotonic()
            most = profile.until(step, steps_until(step, total_steps, stops_every))
            taken, count = feed.take(most)
            report.waited(time.monotonic() - waiting)
            watchdog.beat(step, "computing")
            first = step == start
            if first:
                say("the first step begins")
            profile.before(step, state)
            state, metrics = feed.run(state, taken)
            # The metrics of the previous step are read while the device works on this one.
            report.steps(step, stage.rate, pending)
            pending, step = (metrics, count), step + count
            if first:  # shown at once; what no training step needs is compiled only now
                report.steps(step, stage.rate, pending)
                pending = None
                compile_prediction(state)
            profile.after(step, (state, metrics))
            checkpoints.check()
        watchdog.pause("saving")
        checkpoints.wait()
        best = checkpoints.best_step
    say(f"trained {step} of {total_steps} steps; best checkpoint: step {best}")
    return scores
