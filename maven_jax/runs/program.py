"""The predictor as one portable program: StableHLO by `jax.export`, for several platforms at once.

It needs neither this package's models nor a recipe: JAX and the bundle's `weights.safetensors` are
enough (`docs/export.md` shows it). Its arguments:

    weights          path -> array, as weights.safetensors has them
    features         modality -> (b, s, c) float32, or uint8 for pixels; raw, not yet standardised
    modality_masks   modality -> (b, s) bool
    frame_mask       (b, t) bool

It returns (b, t, 2): valence and arousal in [-1, 1]. Behind them are the model's targets beside
these, as `outputs` in bundle.json names them: numbers in [-1, 1], or probabilities. The number of
windows b is free, where the model allows it; t is the recipe's window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Bool, Float, UInt8

from maven_jax.errors import UserError, did_you_mean
from maven_jax.kernels.device import portable
from maven_jax.runs import bundle
from maven_jax.runs.bundle import arrays_of, weights_of
from maven_jax.runs.trained_model import TrainedModel
from maven_jax.types import Batch

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@dataclass(frozen=True)
class Program:
    """A predictor that was loaded from a bundle.

    Attributes:
        platforms: where it runs.
        call: (weights, features, modality_masks, frame_mask) -> `outputs`.
        outputs: what the columns of the result are called: valence, arousal, others.
        weights: of the bundle that it comes from.
    """

    platforms: tuple[str, ...]
    call: Callable[..., Array]
    outputs: tuple[str, ...]
    weights: dict[str, np.ndarray]

    def __call__(
        self,
        features: dict[str, Float[Any, "b _ _"] | UInt8[Any, "b _ _"]],
        modality_masks: dict[str, Bool[Any, "b _"]],
        frame_mask: Bool[Any, "b t"],
    ) -> Float[Array, "b t _"]:
        """The outputs for some windows."""
        return self.call(self.weights, features, modality_masks, frame_mask)


def check_platforms(platforms: Sequence[str]) -> tuple[str, ...]:
    """Raises UserError unless these are some of `PLATFORMS`."""
    for name in platforms:
        if name not in PLATFORMS:
            raise UserError(f"--platforms {name}: no such platform{did_you_mean(name, PLATFORMS)}")
    if not platforms:
        raise UserError(f"--platforms: expected some of {', '.join(PLATFORMS)}")
    return tuple(dict.fromkeys(platforms))


def exported_function(model: TrainedModel) -> Callable[..., Array]:
    """The function of the program, before it is exported; weights by path."""
    predict = model.function()

    def program(weights: Any, features: Any, modality_masks: Any, frame_mask: Any) -> Array:
        rows, frames = frame_mask.shape
        batch = Batch(
            features=features,
            modality_masks=modality_masks,
            frame_mask=frame_mask,
            targets=jnp.zeros((rows, frames, 2), jnp.float32),
            target_mask=jnp.zeros((rows, frames), bool),
            # MAVEN's released noise depends on the window: here it is that of a video's first one.
            window=jnp.zeros(rows, jnp.int32),
        )
        return predict(weights_of(weights, "the program"), batch)

    return program


def export_program(model: TrainedModel, platforms: Sequence[str]) -> tuple[bytes, bool]:
    """The serialized program, and whether it takes any number of windows (otherwise one).

    Raises:
        UserError: it cannot be lowered for one of the platforms.
    """
    function = jax.jit(exported_function(model))
    try:
        (rows,) = export.symbolic_shape("b")
        with portable():
            made = export.export(function, platforms=platforms)(*_arguments(model, rows))
        return bytes(made.serialize()), True
    except Exception:  # of its own kind from each operation that needs to know b
        pass
    try:
        with portable():
            made = export.export(function, platforms=platforms)(*_arguments(model, 1))
        return bytes(made.serialize()), False
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"no program for {', '.join(platforms)}: {line[:200]}") from error


def _arguments(model: TrainedModel, rows: Any) -> tuple[Any, ...]:
    """Shapes of the program's arguments for so many windows, a number or a symbol."""

    def shape(x: Any) -> jax.ShapeDtypeStruct:
        dtype = x.dtype if x.dtype in (np.bool_, np.uint8) else jnp.float32
        return jax.ShapeDtypeStruct((rows, *x.shape[1:]), dtype)

    example = model.example()
    weights = {
        k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in arrays_of(model.weights).items()
    }
    return (
        weights,
        {m: shape(x) for m, x in example.features.items()},
        {m: shape(x) for m, x in example.modality_masks.items()},
        shape(example.frame_mask),
    )


def open_program(folder: Path | str) -> Program:
    """The program of a bundle and its weights.

    JAX's and MLIR's own readers parse the file: of a bundle from strangers it is safer to take
    the weights alone (`maven_jax.load`).

    Raises:
        UserError: the bundle has none or is damaged, or this version of JAX cannot read it.
    """
    folder = Path(folder)
    parts = bundle.open_bundle(folder)
    place = folder / bundle.PROGRAM_FILE
    try:
        read = export.deserialize(bytearray(bundle.read_program(folder)))
        taken = read.in_tree.unflatten(read.in_avals)[0][0]
        shapes = {name: tuple(x.shape) for name, x in taken.items()}
    except UserError:
        raise
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{place}: no program that this JAX reads ({line[:200]})") from None
    if shapes != {name: x.shape for name, x in parts.arrays.items()}:
        raise UserError(f"{place}: takes other weights than {bundle.WEIGHTS_FILE} holds")
    return Program(tuple(read.platforms), read.call, parts.outputs, parts.arrays)
