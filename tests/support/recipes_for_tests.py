"""A recipe that is small enough to train within a test."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from maven_jax import recipes


def small_recipe(store: Path, name: str = "quickstart", **changes: object) -> ConfigDict:
    """A recipe on `store` with short windows, a narrow model and two epochs.

    Args:
        store: the feature store.
        name: of the recipe.
        changes: other values; `__` in a keyword stands for the dots of the key.
    """
    config = recipes.load(name)
    config.data.synthetic = None
    config.data.store = str(store)
    config.data.window.length = 50
    config.data.window.hop = 50
    config.eval.labels = {}  # of a corpus that may lie in this folder
    config.train.num_epochs = 2.0
    config.train.eval_every_epochs = 1.0
    config.train.batch_size = 8
    config.train.log_every_steps = 1
    config.eval.batch_size = 8
    if config.model.name == "maven":
        narrow = dict(embed_dim=16, refine_dim=16, beit_mlp_dim=32, beit_heads=2, head_dims=(16, 8))
        config.model.update(narrow)
    for key, value in changes.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        with node.ignore_type():
            node[last] = value
    return config
