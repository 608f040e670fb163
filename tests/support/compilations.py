"""What JAX traces and compiles while a test runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

# Once for each program that is traced, and once for each that is compiled or found in the cache.
_TRACED = "/jax/core/compile/jaxpr_trace_duration"
_COMPILED = "/jax/core/compile/backend_compile_duration"


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Counts the programs that are `traced` and `compiled` in the block, by all threads."""
    counts = {"traced": 0, "compiled": 0}

    def listen(event: str, *_: object, **__: object) -> None:
        counts["traced"] += event == _TRACED
        counts["compiled"] += event == _COMPILED

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
