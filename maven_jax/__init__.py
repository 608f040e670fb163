"""Continuous emotion recognition in JAX: valence and arousal for every frame of a video."""

__version__ = "0.1.0"
