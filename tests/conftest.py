"""One compilation cache for all processes of a test session; it goes when the session ends."""

from __future__ import annotations

import os
import shutil
import tempfile

import jax

# The first process makes the folder; xdist's workers and the commands that tests start inherit it.
_OWNED = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if _OWNED:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="maven_jax-compiled-")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])


def pytest_unconfigure(config) -> None:
    if _OWNED:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
