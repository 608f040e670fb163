"""Continuous emotion recognition in JAX: valence and arousal for every frame of a video.

The public names, imported when they are asked for:

* `load(path)`: a predictor of videos, sounds and face crops, from a workdir or a bundle.
* `open_model(path)`: the trained model itself, its weights and what it was trained on.
* `train(config, workdir)`: train by a recipe. `evaluate(workdir, split)`: score the result.
* `ccc(predictions, targets, mask)`: the concordance correlation coefficient.
* `UserError`: what every mistake that a user can mend raises, in one line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maven_jax.version import __version__

if TYPE_CHECKING:
    from maven_jax.concordance import ccc
    from maven_jax.errors import UserError
    from maven_jax.runs.evaluate import evaluate
    from maven_jax.runs.trained_model import open_model
    from maven_jax.training.train import train
    from maven_jax.video.predictor import load

__all__ = ["UserError", "__version__", "ccc", "evaluate", "load", "open_model", "train"]

_HOMES = {
    "UserError": "maven_jax.errors",
    "ccc": "maven_jax.concordance",
    "evaluate": "maven_jax.runs.evaluate",
    "load": "maven_jax.video.predictor",
    "open_model": "maven_jax.runs.trained_model",
    "train": "maven_jax.training.train",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: commands that predict nothing start without JAX.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
