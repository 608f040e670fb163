"""Running `maven-jax convert` in tests, and the model that it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import torch

from maven_jax import recipes
from maven_jax.__main__ import main
from maven_jax.models import registry
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.workdir import read_record
from maven_jax.types import Prediction

# Models run once or twice: compiling them well takes longer than running them does.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def with_random_weights(module: torch.nn.Module, gain: float | int = 1) -> torch.nn.Module:
    """The module in inference mode; vectors, which often start as zeros or ones, are random too.

    Args:
        module: freshly made.
        gain: multiplies matrices, so that all parts show in the output.
    """
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim < 2:
            tensor += 0.2 * torch.rand(tensor.shape, generator=generator) - 0.1
        elif tensor.is_floating_point() and gain != 1:
            tensor *= gain
    return module.eval()


def save(module: torch.nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


def light(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict with zeros that take no room in a file in the place of its large tensors."""
    return {k: torch.zeros(1).expand(v.shape) if v.numel() > 10**5 else v for k, v in state.items()}


def convert(model: str, file: Path, out: Path, *more: str) -> int:
    """The exit code of the real command."""
    return main(["convert", "--model", model, "--input", str(file), "--out", str(out), *more])


def read_model(workdir: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model that the workdir's config describes, and its variables."""
    config, _ = read_record(workdir)
    section = recipes.plain(config.model)
    model = registry.create(
        section.pop("name"), modalities=config.data.modalities, target_mean=(0.0, 0.0), **section
    )
    checkpoints = Checkpoints(workdir, keep_latest=1, keep_best=1, read_only=True)
    weights = checkpoints.read_weights(checkpoints.resolve("best"))
    checkpoints.close()
    return model, {"params": weights["params"], **weights["model_state"]}


def predict(workdir: Path, features: Mapping[str, torch.Tensor]) -> Prediction:
    """What the converted model makes of features, all of them observed."""
    model, variables = read_model(workdir)
    x = {name: jnp.asarray(value.numpy()) for name, value in features.items()}
    masks = {name: jnp.ones(value.shape[:2], bool) for name, value in x.items()}
    frames = max(masks.values(), key=lambda mask: mask.shape[1])
    apply = jax.jit(partial(model.apply, train=False), compiler_options=FAST_COMPILE)
    return apply(variables, x, masks, frames)
