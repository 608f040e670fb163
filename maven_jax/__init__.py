"""Continuous emotion recognition in JAX: valence and arousal for every frame of a video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maven_jax.video.predictor import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: commands that predict nothing start without it.
    if name == "load":
        from maven_jax.video.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
