"""A run's numbers for Weights & Biases and MLflow, where the recipe says so.

`WANDB_MODE=offline` and `MLFLOW_TRACKING_URI` are theirs, and heeded; without an address MLflow
writes into the workdir.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.inputs import read_json
from maven_jax.progress import say
from maven_jax.runs.workdir import TRACKED_FILE, flatten


class _WandB:
    """One run of Weights & Biases; the recipe's value is its project."""

    def __init__(self, project: str, workdir: Path, run: str | None, config: dict[str, Any]):
        import wandb  # pyright: ignore[reportMissingImports]

        self.run = run or secrets.token_hex(8)
        self._run = wandb.init(
            project=project,
            id=self.run,
            name=workdir.name,
            dir=str(workdir),
            config=config,
            resume="allow",
            settings=wandb.Settings(console="off", save_code=False),
        )

    def add(self, step: int, values: Mapping[str, float | int]) -> None:
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    """One run of MLflow; the recipe's value is its experiment."""

    def __init__(self, experiment: str, workdir: Path, run: str | None, config: dict[str, Any]):
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"file:{workdir.absolute() / 'mlruns'}")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # A server that is away holds training up for seconds, not for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]
        from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

        self._metric, self._client = Metric, MlflowClient()
        if run is None:
            known = self._client.get_experiment_by_name(experiment)
            number = known.experiment_id if known else self._client.create_experiment(experiment)
            run = self._client.create_run(number, run_name=workdir.name).info.run_id
            for key, value in flatten(config).items():
                self._client.log_param(run, key, str(value)[:6000])  # the most that it takes
        self.run = run

    def add(self, step: int, values: Mapping[str, float | int]) -> None:
        now_ms = round(1000 * time.time())
        metrics = [self._metric(k, float(v), now_ms, step) for k, v in values.items()]
        self._client.log_batch(self.run, metrics)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.run, "FAILED" if failed else "FINISHED")


# Key of `config.train`, which is the package's name too: its client.
_CLIENTS: dict[str, Callable[..., _WandB | _MLflow]] = {"wandb": _WandB, "mlflow": _MLflow}


class Tracker:
    """One service; what goes wrong in it is said once and costs nothing but its numbers.

    Args:
        name: of `_CLIENTS`.
        workdir: folder of the run.
        config: the resolved recipe.
    """

    def __init__(self, name: str, workdir: Path, config: recipes.Config):
        self._name, self._client = name, None
        self._guarded(lambda: self._begin(workdir, config))

    def _begin(self, workdir: Path, config: recipes.Config) -> None:
        path = workdir / TRACKED_FILE
        runs = read_json(path, "the runs of trackers", {str: str}) if path.exists() else {}
        place, values = config.train[self._name], recipes.plain(config)
        self._client = _CLIENTS[self._name](place, workdir, runs.get(self._name), values)
        write_json(path, runs | {self._name: self._client.run})

    def add(self, step: int, values: Mapping[str, float | int]) -> None:
        """Adds the numbers of a step."""
        if (client := self._client) is not None:
            self._guarded(lambda: client.add(step, values))

    def close(self) -> None:
        """Ends the service's run: as failed if an error is being raised."""
        failed = sys.exc_info()[0] is not None
        if (client := self._client) is not None:
            self._guarded(lambda: client.close(failed))

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # theirs to raise anything
            self._client = None
            reason = (str(error).strip() or "no more is said").splitlines()[0][:300]
            say(f"note: {self._name} gets nothing from here on: {type(error).__name__}: {reason}")


def check(config: recipes.Config) -> None:
    """Raises UserError if the recipe asks for a service whose package is not installed."""
    for name in _CLIENTS:
        if config.train[name] is not None and importlib.util.find_spec(name) is None:
            raise UserError(
                f"config.train.{name}={config.train[name]!r} needs a package: "
                f"pip install 'maven_jax[{name}]'"
            )


def trackers_of(config: recipes.Config, workdir: Path) -> list[Tracker]:
    """Those that the recipe asks for."""
    return [Tracker(n, workdir, config) for n in _CLIENTS if config.train[n] is not None]
