"""What a training run says of its steps: metrics to files, a line now and then."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.progress import format_duration, say
from maven_jax.runs.metrics import MetricWriter, SilentWriter


class NonFiniteLoss(UserError):
    """The loss became NaN or infinite."""


class Reporter:
    """Checks every step's loss; writes and shows every so many steps' metrics."""

    def __init__(
        self,
        experiment: Experiment,
        writer: MetricWriter | SilentWriter,
        start: int,
        *,
        steps_per_epoch: int,
        total_steps: int,
    ):
        config = experiment.config
        self._writer, self._dimensions = writer, experiment.dimensions
        self._every = config.train.log_every_steps
        self._batch_size, self._split = config.train.batch_size, config.data.eval_split
        self._steps_per_epoch, self._total = steps_per_epoch, total_steps
        self._last = time.monotonic()
        self._last_step, self._waited, self._ccc = start, 0.0, math.nan

    def waited(self, seconds: float) -> None:
        """Adds time in which the loop waited for data."""
        self._waited += seconds

    def steps(self, last: int, rate: Any, taken: tuple[dict[str, Any], int] | None) -> None:
        """Takes the metrics of the steps that led to `last`, and their schedule.

        Args:
            last: the step after them.
            rate: step -> learning rate.
            taken: metrics and how many steps they are of: scalars of one, or (n,) of which so
                many count; None for nothing new.

        Raises:
            NonFiniteLoss: a loss is NaN or infinite.
        """
        if taken is None:
            return
        metrics, count = taken
        arrays = {name: np.atleast_1d(np.asarray(value)) for name, value in metrics.items()}
        for i in range(count):
            values = {name: float(array[i]) for name, array in arrays.items()}
            self._step(last - count + 1 + i, rate, values)

    def _step(self, step: int, rate: Any, values: dict[str, float]) -> None:
        if not math.isfinite(values["loss"]):
            raise NonFiniteLoss(
                f"the loss is {values['loss']} at step {step}; the last checkpoint is whole. "
                "Lower config.optimizer.learning_rate or set config.optimizer.clip_norm"
            )
        if step % self._every and step != 1:
            return
        values["learning_rate"] = float(rate(step - 1))
        now = time.monotonic()
        took = max(now - self._last, 1e-9)
        windows = (step - self._last_step) * self._batch_size
        remaining = took / (step - self._last_step) * (self._total - step)
        shown = "" if math.isnan(self._ccc) else f"  {self._split} ccc {self._ccc:.3f}"
        say(
            f"step {step}/{self._total}  epoch {step / self._steps_per_epoch:.1f}"
            f"  loss {values['loss']:.4f}{shown}  {windows / took:.1f} windows/s"
            f"  waiting {self._waited / took:.0%}  {format_duration(remaining)} left"
        )
        self._last, self._last_step, self._waited = now, step, 0.0
        self._writer.write(step, "train", values)

    def evaluation(self, step: int, scores: dict[str, Any], scale: float) -> None:
        """Takes the scores of an evaluation."""
        self._ccc = scores["ccc"]
        self._writer.write(step, self._split, scores)
        say(
            f"step {step}/{self._total}  {self._split}: ccc {scores['ccc']:.4f} ("
            + ", ".join(f"{d} {scores[f'ccc_{d}']:.4f}" for d in self._dimensions)
            + ")"
            + (f"  learning rate x {scale:g}" if scale != 1 else "")
        )
