"""How long programs take to compile, and the memory that they need."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

from maven_jax.runtime.compilation import keep_compiled


class Compiling:
    """One program after the other, in a thread beside the caller's work.

    One at a time, so that they do not disturb each other's choice of kernels.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Compiling:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def begin(self, compile_it: Callable[[], Any]) -> Callable[[], tuple[Any, float]]:
        """Begins to compile; what it returns waits for the program and its seconds."""

        def work() -> tuple[Any, float]:
            began = time.perf_counter()
            program = compile_it()
            return program, time.perf_counter() - began

        return self._pool.submit(work).result


def cached_seconds(compile_it: Callable[[], Any]) -> float:
    """Seconds of compiling again, from the folder of compiled programs."""
    jax.clear_caches()  # which are in memory
    began = time.perf_counter()
    compile_it()
    return time.perf_counter() - began


def memory_facts(program: Any) -> dict[str, float | None]:
    """Gigabytes that a program needs, and the most that JAX has had in use in this process."""
    analysis = program.memory_analysis()
    in_use = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "temporary_gb": analysis.temp_size_in_bytes / 1e9,
        "arguments_gb": analysis.argument_size_in_bytes / 1e9,
        "peak_gb_so_far": None if in_use is None else in_use / 1e9,
    }


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Compiled programs go into an empty folder, unless JAX was told another one."""
    given = jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", given or folder)
        keep_compiled()
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", given)
