"""The parts of which models are made; those that most fusions need are handed on here."""

from maven_jax.layers.dropout import Dropout
from maven_jax.layers.heads import RegressionHead
from maven_jax.layers.linear import dense
from maven_jax.layers.modalities import EmbedModalities, over_frames

__all__ = ["Dropout", "EmbedModalities", "RegressionHead", "dense", "over_frames"]
