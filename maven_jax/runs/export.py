"""A trained model written as one portable folder, and checked by opening it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from maven_jax.errors import UserError
from maven_jax.files import whole_folder
from maven_jax.progress import say
from maven_jax.runs.bundle import Bundle, arrays_of, digests, refuse_own_file, write_bundle
from maven_jax.runs.model_card import model_card
from maven_jax.runs.program import check_platforms, export_program, open_program
from maven_jax.runs.trained_model import TrainedModel, open_model
from maven_jax.types import Batch

# Two compilations of one function may sum some hundred float32 terms in another order.
_SAME = 1e-5


def export(
    checkpoint: Path | str,
    out: Path | str,
    *,
    platforms: Sequence[str],
    which: str = "best",
    licence: str | None = None,
) -> TrainedModel:
    """Writes a bundle and opens it again; `out` appears whole or not at all.

    Args:
        checkpoint: a workdir, or a bundle that is to be exported anew.
        out: folder to write; empty or absent.
        platforms: that the program runs on, some of cpu, cuda, rocm, tpu; none for a bundle without
            program.
        which: of a workdir: `best`, `latest` or a step.
        licence: of the weights, for the card.

    Returns:
        The model as the bundle gives it.

    Raises:
        UserError: nothing to export, an unknown platform, a folder that holds something, or what
            was written does not give the numbers of the original.
    """
    out = Path(out)
    model = open_model(checkpoint, which)
    if model.calibration is not None and model.calibration.step != model.step:
        say(f"note: calibration was tuned on step {model.calibration.step}: it does not go along")
        model = dataclasses.replace(model, calibration=None)
    refuse_own_file(model.config)
    program, free_batch = (
        export_program(model, check_platforms(platforms)) if platforms else (None, True)
    )
    with whole_folder(out) as folder:

        def card(parts: Mapping[str, Mapping[str, Any]]) -> str:
            return model_card(
                model, parts, licence=licence, platforms=platforms, free_batch=free_batch
            )

        bundle = Bundle(
            folder=folder,
            config=model.config,
            trained_on=model.trained_on,
            arrays=arrays_of(model.weights),
            step=model.step,
            scores=model.scores,
            calibration=model.calibration,
            record=model.record,
        )
        write_bundle(bundle, card, program)
        difference = largest_difference(model, folder, program is not None)
        if not difference <= _SAME:
            raise UserError(
                f"{out}: the bundle's predictions differ from the run's by {difference:.1e}; "
                "nothing is written"
            )
    say(config_line(model))
    for name, part in digests(out).items():
        say(f"  {name:<22} {part['bytes']:>12,} bytes  sha256 {part['sha256']}")
    if platforms:
        windows = "any number of windows" if free_batch else "one window at a time"
        say(f"program: {', '.join(platforms)}; {windows}")
    what = "bundle and program give" if platforms else "the bundle gives"
    say(f"opened again: {what} the run's numbers (largest difference {difference:.1e})")
    if model.label:
        say(f"note: {model.label}")
    say(f"written: {out}")
    return open_model(out)


def config_line(model: TrainedModel) -> str:
    """What was exported, in one line."""
    widths = ", ".join(f"{m} ({s.dim})" for m, s in model.trained_on.modalities.items())
    return f"{model.config.model.name}, step {model.step}, on {widths}"


def largest_difference(model: TrainedModel, folder: Path, program: bool) -> float:
    """Between predictions of a model and of the bundle (and program) in a folder, on noise."""
    batch = _noise(model)
    expected = np.asarray(jax.jit(model.function())(model.weights, batch))
    opened = open_model(folder)
    outputs = [np.asarray(jax.jit(opened.function())(opened.weights, batch))]
    if program:
        run = open_program(folder)
        features = {
            m: x if x.dtype == np.uint8 else x.astype(np.float32) for m, x in batch.features.items()
        }
        if jax.default_backend() in _names(run.platforms):
            outputs.append(np.asarray(run(features, batch.modality_masks, batch.frame_mask)))
    return max(float(np.abs(expected - x).max()) for x in outputs)


def _names(platforms: Sequence[str]) -> set[str]:
    """As `jax.default_backend` names them."""
    return {"gpu" if p in ("cuda", "rocm") else p for p in platforms}


def _noise(model: TrainedModel) -> Batch:
    """One window of random features, as the training statistics have them."""
    rng, example, statistics = np.random.default_rng(0), model.example(), model.weights.statistics
    features = {}
    for name, zeros in example.features.items():
        if zeros.dtype == np.uint8:
            features[name] = rng.integers(0, 256, zeros.shape, np.uint8)
            continue
        mean, std = np.asarray(statistics.mean[name]), np.asarray(statistics.std[name])
        features[name] = (mean + std * rng.normal(size=zeros.shape)).astype(zeros.dtype)
    return example.replace(
        features=features,
        modality_masks={m: np.ones_like(x) for m, x in example.modality_masks.items()},
        frame_mask=np.ones_like(example.frame_mask),
    )
