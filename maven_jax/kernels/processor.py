"""What the program runs on; kernels ask this, models never do."""

from __future__ import annotations

import jax


def on_one_processor() -> bool:
    """Whether the program is for one CPU, not for accelerators or several (simulated) devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() == "cpu" and (mesh.empty or mesh.size == 1)
