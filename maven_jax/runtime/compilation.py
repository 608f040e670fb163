"""Compiled programs are kept on disk, so that the same command starts faster the second time."""

from __future__ import annotations

import hashlib
import os
import platform
import warnings
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Where this machine's programs are kept when nothing else is set.

    JAX's key for a program does not name the processor's instruction set, and a home folder may be
    shared by unlike machines, so each kind of processor has a folder of its own.
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
    """Turns JAX's compilation cache on, unless the user has chosen a folder or switched it off.

    `JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=false` turns it
    off. A folder that cannot be written only costs the time.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    # With the file and line of JAX, for every program.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    # All of them: a start compiles dozens of small programs, and each takes longer than its file.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
