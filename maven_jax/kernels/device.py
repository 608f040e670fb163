"""What the program runs on; kernels ask this, models never do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

ACCELERATORS = ("gpu", "tpu")
_portable = ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced meanwhile runs on every platform: kernels leave it to the formulas."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def platform() -> str:
    """Returns "cpu", "gpu" or "tpu": that of the mesh, which need not be there, or JAX's own.

    "any" for a portable program.
    """
    if _portable.get():
        return "any"
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform


def num_devices() -> int:
    """How many devices share the program's arrays."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def on_one_processor() -> bool:
    """Whether the program is for one CPU, not for accelerators or several (simulated) devices."""
    return platform() == "cpu" and num_devices() == 1


def compute_capability() -> tuple[int, int]:
    """Returns NVIDIA's number for what the GPU can do, (9, 0) for Hopper; (0, 0) elsewhere."""
    if platform() != "gpu":
        return 0, 0
    number = getattr(jax.local_devices(backend="gpu")[0], "compute_capability", "")
    major, _, minor = str(number).partition(".")
    # AMD's devices have names there.
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
