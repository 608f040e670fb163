"""What all tests share: one compilation cache, which goes when the session ends; a small disk.

Weights that this machine's user has fetched are not seen: faces would be found by another detector.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import tempfile

import jax
import pytest

# Most of the suite's time is compiling, and most of that LLVM's optimiser and the MLIR of fusions;
# what XLA does to a program is the same without them. One module for LLVM costs less than 32 do.
# `XLA_FLAGS= pytest` runs what users run.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
# JAX, PyTorch and what was traced are millions of objects, which Python would walk again and again.
gc.set_threshold(100_000)

# The first process makes the folder; xdist's workers and the commands that tests start inherit it.
_OWNED = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if _OWNED:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="maven_jax-compiled-")
os.environ["MAVEN_JAX_WEIGHTS"] = os.environ["JAX_COMPILATION_CACHE_DIR"] + "-weights"
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
# Small programs too: a second run of a test's compiles all of them again.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_unconfigure(config) -> None:
    if _OWNED:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of its own with room for some checkpoints of a run, but not for all."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)],
        capture_output=True,
        text=True,
    )
    if mount.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
