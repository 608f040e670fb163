"""An example of a sweep: the quickstart's baseline at three learning rates, two seeds each.

    python -m launch.sweep sweeps/learning_rate --out runs/learning_rate --jobs 2

The corpus is the quickstart's. Without making it, 2 minutes on 2 CPU cores.
"""

from typing import Any

from ml_collections import ConfigDict

from maven_jax import recipes


def get_config(arg: str = "") -> ConfigDict:
    c = recipes.load(f"quickstart:{arg or 'concat'}")
    c.train.num_epochs = 4.0
    return c


def get_sweep() -> list[dict[str, Any]]:
    return [
        {
            "name": f"lr{rate:g}_seed{seed}",
            "overrides": {"optimizer.learning_rate": rate, "seed": seed},
        }
        for rate in (3e-4, 1e-3, 3e-3)
        for seed in (0, 1)
    ]
