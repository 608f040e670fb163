"""Continuous emotion recognition in JAX: valence and arousal for every frame of a video.

The public names, each imported when it is first used (`docs/api.md` shows them at work):

* `load(path)`: a predictor of videos, sounds and face crops, from a workdir or a bundle.
* `load_affect()`: one by published networks of affect, without a checkpoint.
* `load_recipe(name)`: a recipe's config. `train(config, workdir)`: train by it.
* `evaluate(workdir, split)`: score the result and write its report.
* `open_model(path)`: a trained model itself, its weights and what it was trained on.
* `predict_split(model, split)`: what it predicts for the videos of a feature store.
* `score(videos)`: the scores of such predictions. `box_filter(values, frames)`: smooth them.
* `ccc(predictions, targets)`: the concordance correlation coefficient of arrays.
* `CccState`: its moments, which can be merged.
* `export(checkpoint, out, platforms=…)`: write a bundle. `open_program(bundle)`: its program.
* `allow_model_file(path)`: lets the models of others be in this file of yours, which is run.
* `silence()`: no progress lines.
* `UserError`: what every mistake that a user can mend raises, in one line.

The challenge's files have a package of their own: `maven_jax.challenge`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maven_jax.version import __version__

if TYPE_CHECKING:
    from maven_jax.concordance import CccState, ccc
    from maven_jax.errors import UserError
    from maven_jax.evaluation.calibration import box_filter
    from maven_jax.evaluation.scores import score
    from maven_jax.own_files import allow as allow_model_file
    from maven_jax.progress import silence
    from maven_jax.recipes import load as load_recipe
    from maven_jax.runs.evaluate import evaluate
    from maven_jax.runs.export import export
    from maven_jax.runs.predict_split import predict_split
    from maven_jax.runs.program import open_program
    from maven_jax.runs.trained_model import open_model
    from maven_jax.training.train import train
    from maven_jax.video.affect import load_affect
    from maven_jax.video.predictor import load

__all__ = [
    "CccState",
    "UserError",
    "__version__",
    "allow_model_file",
    "box_filter",
    "ccc",
    "evaluate",
    "export",
    "load",
    "load_affect",
    "load_recipe",
    "open_model",
    "open_program",
    "predict_split",
    "score",
    "silence",
    "train",
]

# name: (module, what it is called there)
_HOMES = {
    "CccState": ("maven_jax.concordance", "CccState"),
    "UserError": ("maven_jax.errors", "UserError"),
    "allow_model_file": ("maven_jax.own_files", "allow"),
    "box_filter": ("maven_jax.evaluation.calibration", "box_filter"),
    "ccc": ("maven_jax.concordance", "ccc"),
    "evaluate": ("maven_jax.runs.evaluate", "evaluate"),
    "export": ("maven_jax.runs.export", "export"),
    "load": ("maven_jax.video.predictor", "load"),
    "load_affect": ("maven_jax.video.affect", "load_affect"),
    "load_recipe": ("maven_jax.recipes", "load"),
    "open_model": ("maven_jax.runs.trained_model", "open_model"),
    "open_program": ("maven_jax.runs.program", "open_program"),
    "predict_split": ("maven_jax.runs.predict_split", "predict_split"),
    "score": ("maven_jax.evaluation.scores", "score"),
    "silence": ("maven_jax.progress", "silence"),
    "train": ("maven_jax.training.train", "train"),
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    # Imported when first used: commands that predict nothing start without JAX.
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
