"""Keeps compiled programs on disk, so that the same command starts faster the second time."""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax


def cache_folder() -> Path:
    """The default folder for this machine's compiled programs.

    Each kind of processor has its own: JAX's key for a program does not name the processor's
    instruction set, and different machines may share a home folder.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    kind = hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
    return root / "maven_jax" / "compiled" / kind


def keep_compiled() -> None:
    """Turns JAX's compilation cache on.

    `JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns it
    off. If the folder cannot be written, programs are compiled every time.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    # One for every program, with the file and line of JAX.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    # Small programs too: a start compiles dozens of them, and reading one is faster than compiling.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
