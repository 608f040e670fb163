"""What the program runs on; kernels ask this, models never do."""

from __future__ import annotations

import jax


def on_one_processor() -> bool:
    """Whether the program is for one CPU, not for accelerators or several (simulated) devices."""
    return _platform() == "cpu" and devices() == 1


def on_tpu() -> bool:
    """Whether the program is for TPUs."""
    return _platform() == "tpu"


def devices() -> int:
    """How many devices share the program's arrays."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def _platform() -> str:
    """Of the mesh's devices, which need not be here: a program can be compiled for others."""
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform
