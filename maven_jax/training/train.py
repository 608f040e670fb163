"""Training a model by a recipe."""

from __future__ import annotations

import contextlib
import dataclasses
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
from maven_jax.training.centring import settle_centre
from maven_jax.training.feed import make_feed
from maven_jax.training.initial_weights import start_from
from maven_jax.training.mixing import open_mixed, training_source
from maven_jax.training.optimizer import Plateau
from maven_jax.training.profile import WARM_UP_STEPS, Profile, steps_to_record, steps_until
from maven_jax.training.reporter import Reporter
from maven_jax.training.sizes import settle_sizes
from maven_jax.training.stages import StageBuilder, StageControl


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
    """`train` in a folder that is its own."""
    settle_sizes(experiment)
    settle_centre(experiment, workdir, watchdog)
    for line in experiment.describe():
        say(line)
    if experiment.config.optimizer.get("name") == "closed_form":
        return closed_form.fit(experiment, workdir, overrides, watchdog, preemption)
    run = _Run(experiment, workdir, watchdog)
    run.begin(overrides)
    return run.loop(preemption, profile_steps)


@dataclasses.dataclass(frozen=True)
class _Lengths:
    """How long a run is and how often it does what, in steps."""

    epoch: int
    total: int
    eval_every: int
    save_every: int
    log_every: int

    @classmethod
    def of(cls, config: Config, epoch_windows: int) -> _Lengths:
        """By a recipe, for so many windows an epoch."""
        epoch = max(math.ceil(epoch_windows / config.train.batch_size), 1)
        return cls(
            epoch=epoch,
            total=math.ceil(config.train.num_epochs * epoch),
            eval_every=max(round(config.train.eval_every_epochs * epoch), 1),
            save_every=config.checkpoint.every_steps,
            log_every=config.train.log_every_steps,
        )


class _Run:
    """A run of training: what it is made of and the state it is in.

    It reads in the order in which it runs: data and model, weights (fresh or restored), loop. One
    turn of the loop is: evaluate, save, begin the next stage, take the next batch, step.
    """

    def __init__(self, experiment: Experiment, workdir: Path, watchdog: Watchdog):
        config, mesh = experiment.config, experiment.mesh
        self._experiment, self._workdir, self._watchdog = experiment, workdir, watchdog

        windows = experiment.windows(config.data.train_split, train=True)
        if config.train.batch_size % (config.train.accumulate_steps * mesh.shape["data"]):
            raise UserError(
                "config.train.batch_size is not a multiple of accumulate_steps x mesh.data"
            )
        self._mixed = open_mixed(experiment)
        source = training_source(experiment, windows, self._mixed)
        self._lengths = lengths = _Lengths.of(config, source.epoch_windows)
        self._feed = make_feed(experiment, windows, source)

        self._steps = {"steps_per_epoch": lengths.epoch, "total_steps": lengths.total}
        self._builder = StageBuilder(experiment, **self._steps)
        self._plateau = recipes.call(Plateau, config.train.plateau, "train.plateau")
        self._control = StageControl(self._plateau, len(self._builder.groups))
        self._stage = self._builder.build(0, 0)
        weights = self._stage.shardings.weights
        self._predictor = experiment.predictor(config.data.eval_split, weights)
        say(
            f"{config.model.name}: {count_parameters(self._builder.params):,} parameters; "
            f"{len(windows):,} windows of {windows.length} frames from {len(windows.entries)} "
            f"videos, {lengths.epoch} steps per epoch, {lengths.total} steps"
        )
        keep = config.checkpoint.keep
        self._checkpoints = recipes.call(
            Checkpoints, keep, "checkpoint.keep", workdir=workdir, read_only=False
        )
        self._start = 0
        self._state: Any = None
        self._record: dict[str, Any] = {}

    def begin(self, overrides: list[str]) -> None:
        """Makes or restores the weights, and compiles the step."""
        self._start = start = self._checkpoints.newest_usable() or 0
        if not start:
            state = self._builder.fresh(self._stage)
            weights = fit_beside(state.weights, self._experiment, self._watchdog)
            weights = start_from(weights, self._experiment)
            average = None if state.average is None else jax.tree.map(jnp.copy, weights.params)
            self._state = state.replace(weights=weights, average=average)
        self._record = claim(self._workdir, self._experiment, self._mixed, overrides)
        if start:
            self._control.from_json(self._checkpoints.control(start))
            self._stage = self._builder.build(self._control.stage, self._control.first_step)
            self._state, position = self._checkpoints.restore(start, self._stage.like)
            self._feed.position.set_state(position)
            say(f"continuing from step {start} of {self._lengths.total}")
        if self._control.over:
            self._next_stage(start)
        self._compile_step()

    def _compile_step(self) -> None:
        if len(self._builder.groups) > 1:
            say(self._builder.describe(self._stage))
        with jax.set_mesh(self._experiment.mesh), timed("compiling the training step"):
            self._feed.compile(self._stage.step, self._state)

    def _compile_prediction(self) -> None:
        with (
            self._watchdog.paused("compiling the prediction step"),
            jax.set_mesh(self._experiment.mesh),
            timed("compiling the prediction step"),
        ):
            self._predictor.compile(self._state.predicting)

    def _next_stage(self, step: int) -> None:
        best = self._checkpoints.best_step
        assert best is not None
        self._control.advance(step)
        self._stage = self._builder.build(self._control.stage, step)
        say(f"step {step}: the weights of step {best}, the best so far, are put back")
        weights = self._checkpoints.restore_weights(best, self._state.weights)
        self._state = self._stage.begin(self._state.step, weights)

    def _evaluate(self, step: int, report: Reporter) -> dict[str, Any]:
        """The scores of the evaluation split, which may lower the rate or end the stage."""
        evaluating = functools.partial(self._watchdog.beat, step, "evaluating")
        with jax.set_mesh(self._experiment.mesh):
            videos = self._predictor(self._state.predicting, beat=evaluating)
        scores, _ = score(videos, self._experiment.dimensions)
        self._control.update(scores["ccc"])
        scale = np.float32(self._plateau.scale)
        on_devices = jax.device_put(scale, self._stage.shardings.lr_scale)
        self._state = self._state.replace(lr_scale=on_devices)
        report.evaluation(step, scores, self._plateau.scale)
        return scores

    def _save(self, step: int, scores: dict[str, Any] | None) -> None:
        """Saves the state; with the scores if it was evaluated."""
        with self._watchdog.paused("saving"):
            saved = self._control.to_json() | {"run": self._record}
            metrics = scores and {"ccc": scores["ccc"]}
            position = self._feed.position.get_state()
            self._checkpoints.save(step, self._state, position, saved, metrics)

    def _step(self, step: int, most: int, report: Reporter, profile: Profile) -> tuple[Any, int]:
        """Takes batches and runs the steps on them; returns their metrics and their number."""
        self._watchdog.beat(step, "reading its batch")
        waiting = time.monotonic()
        taken, count = self._feed.take(most)
        report.waited(time.monotonic() - waiting)
        self._watchdog.beat(step, "computing")
        if step == self._start:
            say("the first step begins")
        profile.before(step, self._state)
        self._state, metrics = self._feed.run(self._state, taken)
        return metrics, count

    def _profile(self, steps: int) -> Profile:
        """What records some steps of the run, or none."""
        start = self._start
        to_record = range(0)
        if steps:
            pauses = (self._lengths.eval_every, self._lengths.save_every)
            to_record = steps_to_record(start, steps, self._lengths.total, pauses)
            if not to_record:
                say(f"the run ends before step {start + WARM_UP_STEPS}: nothing is recorded")
        return Profile(self._workdir / "profile", to_record, self._watchdog)

    def loop(self, preemption: hosts.Preemption, profile_steps: int) -> dict[str, Any] | None:
        """Trains to the end; returns what `train` returns."""
        writer = open_writer(self._experiment.config, self._workdir, self._start)
        report = Reporter(self._experiment, writer, self._start, **self._steps)
        checkpoints, profile = self._checkpoints, self._profile(profile_steps)
        # However the loop ends, both write what they were given.
        with contextlib.closing(checkpoints), contextlib.closing(writer), profile:
            step, scores = self._turns(report, profile, preemption)
            self._watchdog.pause("saving")
            checkpoints.wait()
            if scores is None:
                saved = f"saved at step {step}" if step else "no step was taken yet"
                say(f"stopped by SIGTERM: {saved}; the same command continues")
                return None
            best = checkpoints.best_step
        say(f"trained {step} of {self._lengths.total} steps; best checkpoint: step {best}")
        return scores

    def _turns(
        self, report: Reporter, profile: Profile, preemption: hosts.Preemption
    ) -> tuple[int, dict[str, Any] | None]:
        """The loop: the step that it ended at, and the last scores, None if it was preempted."""
        lengths, start = self._lengths, self._start
        step = start
        stops_every = (lengths.eval_every, lengths.save_every, lengths.log_every)
        scores: dict[str, Any] = {}
        pending: tuple[dict[str, Any], int] | None = None
        while True:
            last = step == lengths.total
            stops = not last and preemption.reached()
            evaluates = step > start and (last or step % lengths.eval_every == 0)
            if evaluates or (step > start and (stops or step % lengths.save_every == 0)):
                # A state is saved only once the loss that led to it is known to be finite.
                report.steps(step, self._stage.rate, pending)
                pending = None
                if evaluates:
                    scores = self._evaluate(step, report)
                self._save(step, scores if evaluates else None)
            if last or self._control.stopped:
                return step, scores
            if stops:
                return step, None
            if self._control.over:
                with self._watchdog.paused("building the next stage"):
                    self._checkpoints.wait()
                    self._next_stage(step)
                    self._compile_step()
            most = profile.until(step, steps_until(step, lengths.total, stops_every))
            metrics, count = self._step(step, most, report, profile)
            # The metrics of the previous step are read while the device works on this one.
            report.steps(step, self._stage.rate, pending)
            first = step == self._start
            pending, step = (metrics, count), step + count
            if first:  # shown at once; what no step needs is compiled only now
                report.steps(step, self._stage.rate, pending)
                pending = None
                self._compile_prediction()
            profile.after(step, (self._state, metrics))
            self._checkpoints.check()
