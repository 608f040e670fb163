"""What every loader of encoders returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from maven_jax.encoders.head import Head, HeadParams
from maven_jax.encoders.inference_batch_norm import STATISTICS
from maven_jax.encoders.registry import abstract_variables


@dataclass
class LoadedEncoder:
    """An encoder with its parameters.

    Attributes:
        kind: one of `encoders.registry.KINDS`; of "beit" its layers only.
        config: the whole config.json, or the sizes of an encoder whose configs are our own.
        module: `module.apply(variables, ...)` runs it.
        params: plain arrays, float32.
        sha256: of the weight files' bytes (`Tensors.sha256`); of untrained ones, of the values.
        source: the folder or hub id it came from; "random" if untrained.
        folder: where its files lie (processor and tokenizer files beside the weights).
        revision: the hub's commit; None if it came from elsewhere.
        untrained: random parameters.
        unused: names of tensors in the files that the encoder has no use for.
        missing: names of tensors that the files lack and that zeros stand in for.
        state: collection -> variables that are no parameters (statistics of batch norms).
        head: what it was trained to tell, and the parameters of that, if asked for.
    """

    kind: str
    config: dict[str, Any]
    module: nn.Module
    params: dict[str, Any]
    sha256: str
    source: str
    folder: Path | None = None
    revision: str | None = None
    untrained: bool = False
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    head: tuple[Head, HeadParams] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """What `module.apply` takes."""
        return {"params": self.params, **self.state}


def variable_shapes(kind: str, config: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape of every variable; outside of the parameters, the collection leads the path.

    Raises:
        UserError: the kind is unknown, or the config impossible.
    """
    variables = abstract_variables(kind, config)
    paths: dict[str, Any] = dict(flatten_dict(variables, sep="/"))
    return {path.removeprefix("params/"): shape for path, shape in paths.items()}


def nested(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters, and the other collections, from the paths of `variable_shapes`."""
    params: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for path, value in flat.items():
        (state if path.startswith(f"{STATISTICS}/") else params)[path] = value
    return unflatten_dict(params, sep="/"), unflatten_dict(state, sep="/")
