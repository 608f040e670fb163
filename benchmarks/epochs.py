"""Epochs of a recipe without a run: no evaluation, no files."""

from __future__ import annotations

import math
import time
from typing import Any

import jax

from maven_jax.experiment import Experiment
from maven_jax.training.feed import make_feed
from maven_jax.training.stages import StageBuilder


class Epoch:
    """A recipe trained as `maven_jax.train` does it, without the run's files.

    Attributes:
        windows: of an epoch.
        steps: of an epoch.
        load_s: seconds that it took to put the features onto the devices.
    """

    def __init__(self, experiment: Experiment):
        windows = experiment.windows("train", train=True)
        self.windows = len(windows)
        self.steps = math.ceil(len(windows) / experiment.config.train.batch_size)
        self._mesh = experiment.mesh
        began = time.perf_counter()
        self._feed = make_feed(experiment, windows, experiment.source(windows))
        self.load_s = time.perf_counter() - began
        builder = StageBuilder(
            experiment, steps_per_epoch=self.steps, total_steps=1000 * self.steps
        )
        self._stage = builder.build(0, 0)
        self._state: Any = builder.fresh(self._stage)

    def compile(self) -> Any:
        """Compiles the training step; the program."""
        with jax.set_mesh(self._mesh):
            return self._feed.compile(self._stage.step, self._state)

    def take(self, steps: int) -> Any:
        """Takes so many steps; returns arrays that are there when they are done."""
        done, metrics = 0, None
        while done < steps:
            taken, count = self._feed.take(steps - done)
            self._state, metrics = self._feed.run(self._state, taken)
            done += count
        return self._state, metrics

    def seconds(self) -> float:
        """Trains one epoch."""
        began = time.perf_counter()
        jax.block_until_ready(self.take(self.steps))
        return time.perf_counter() - began
