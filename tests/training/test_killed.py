"""Training that is killed again and again computes what it computes undisturbed, bit for bit."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.metrics import read_metrics
from maven_jax.store.reader import Store
from tests.support.root import ROOT
from tests.support.stores import write_small_store

KILLS = 20
EPOCHS = 25  # of 3 steps: three steps for every kill, and some to spare
CONFIG = """
from pathlib import Path
from tests.support.recipes_for_tests import small_recipe

def get_config(arg=""):
    return small_recipe(
        Path({store!r}), {recipe!r}, train__num_epochs={epochs}.0, train__eval_every_epochs=2.0,
        checkpoint__every_steps=2,
    )
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return write_small_store(tmp_path_factory.mktemp("store") / "s", videos=6, frames=150)


class Run:
    """`maven-jax train` in one or several processes, which can be killed and started again."""

    def __init__(self, config: Path, workdir: Path, processes: int):
        self.config, self.workdir, self.count = config, workdir, processes
        self.processes: list[subprocess.Popen] = []

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """All processes, as long as the block lasts."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-u", "-m", "maven_jax", "train"]
        command += ["--config", str(self.config), "--workdir", str(self.workdir)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        environment.pop("XLA_FLAGS", None)
        self.processes = []
        try:
            for i in range(self.count):
                several = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", str(self.count)]
                several += ["--process-id", str(i)]
                log = self.workdir.parent / f"{self.workdir.name}-{i}.log"
                with log.open("a") as errors:
                    process = subprocess.Popen(
                        command + (several if self.count > 1 else []),
                        stdout=subprocess.PIPE if i == 0 else errors,
                        stderr=errors,
                        text=True,
                        env=environment,
                    )
                self.processes.append(process)
            yield
        finally:
            for process in self.processes:
                process.kill()
                process.wait()

    def finish(self) -> None:
        """Runs to the end."""
        with self.started():
            for process in self.processes:
                output, _ = process.communicate(timeout=1200)
                assert process.returncode == 0, output

    def kill_at(
        self, step: int | None, delay_s: float, victims: list[int], number: signal.Signals
    ) -> None:
        """Signals some processes a while after `step` was shown, or after the start if it is None.

        The others have to end by themselves, which is what a scheduler waits for.
        """
        with self.started():
            output = self.processes[0].stdout
            assert output is not None
            if step is not None:
                shown = -1
                for line in output:
                    found = re.match(r"step (\d+)/", line)
                    shown = int(found.group(1)) if found else shown
                    if shown >= step:
                        break
                assert shown >= step, f"the run ended before step {step}"
            time.sleep(delay_s)
            assert all(p.poll() is None for p in self.processes), "a process ended before the kill"
            for i in victims:
                os.kill(self.processes[i].pid, number)
            for i, process in enumerate(self.processes):
                process.communicate(timeout=900)  # it may wait for one that never joins
                if i in victims:  # who is asked to stop saves, if the run has begun
                    ends = (-number, 0) if number == signal.SIGTERM else (-number,)
                    assert process.returncode in ends
                else:
                    assert process.returncode != 0


def final_arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint's weights."""
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    assert checkpoints.latest_step is not None
    weights = checkpoints.read_weights(checkpoints.latest_step)
    checkpoints.close()
    return {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(weights)}


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize(("processes", "recipe"), [(1, "quickstart"), (2, "quickstart")])
def test_twenty_kills_and_stops_change_nothing(store, tmp_path, processes, recipe):
    config = tmp_path / "recipe.py"
    config.write_text(CONFIG.format(store=str(store.path), recipe=recipe, epochs=EPOCHS))
    whole = Run(config, tmp_path / "whole", processes)
    whole.finish()
    rows = read_metrics(whole.workdir)
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 3 * KILLS

    dice = random.Random(processes)
    # Every kill is at a later step than the one before, so that the run is killed that often
    # before it ends; the delay puts it anywhere in a step, an evaluation, a save.
    moments: list[int | None] = sorted(dice.sample(range(2, len(steps) - 4), KILLS - 4))
    for _ in range(4):  # and some while it starts, reads its checkpoint, compiles
        moments.insert(dice.randrange(len(moments)), None)
    killed = Run(config, tmp_path / "killed", processes)
    for step in moments:
        delay_s = dice.uniform(0, 8) if step is None else dice.uniform(0, 0.2)
        victims = dice.choice([[0], [1], [0, 1]]) if processes == 2 else [0]
        asked = processes == 1 and dice.random() < 0.5
        killed.kill_at(step, delay_s, victims, signal.SIGTERM if asked else signal.SIGKILL)
    killed.finish()

    assert read_metrics(killed.workdir) == rows
    expected, found = final_arrays(whole.workdir), final_arrays(killed.workdir)
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        assert array.dtype == found[name].dtype
        assert array.tobytes() == found[name].tobytes(), name
