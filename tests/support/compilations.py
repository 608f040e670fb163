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
    """How many programs have been `traced` and `compiled` since, by all threads."""
    found = {"traced": 0, "compiled": 0}

    def listen(event: str, *_: object, **__: object) -> None:
        found["traced"] += event == _TRACED
        found["compiled"] += event == _COMPILED

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
