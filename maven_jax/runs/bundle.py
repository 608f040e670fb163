"""Portable bundles: a trained model in one folder, in formats that other programs read too.

    bundle.json            format, version, step, outputs, what the model was trained on, how it was
                           made
    config.json            the resolved recipe
    metrics.json           scores by split
    weights.safetensors    float32: params/…, state/…, statistics/{mean,std}/<modality>
    predictor.stablehlo    optional: the predictor as a program, see `maven_jax.runs.program`
    MODEL_CARD.md          for people
    seal.json              bytes and sha256 of each of them

Nothing in a bundle is code of ours or a pickle: opening one from elsewhere runs nothing of it. The
seal finds damage; it does not say who wrote the bundle.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from maven_jax import own_files, recipes
from maven_jax.data.transforms import FeatureStatistics
from maven_jax.errors import UserError
from maven_jax.evaluation.calibration import Calibration, as_widths
from maven_jax.files import write_json
from maven_jax.inputs import read_json
from maven_jax.models.extra_heads import output_names, predicted_beside
from maven_jax.recipes import Config, check_sections
from maven_jax.runs.training_data import TrainingData
from maven_jax.runtime.seal import SEAL, find_fault, read_seal, seal
from maven_jax.state import Weights
from maven_jax.version import __version__

FORMAT, FORMAT_VERSION = "maven_jax bundle", 2
BUNDLE_FILE = "bundle.json"
CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.json"
WEIGHTS_FILE = "weights.safetensors"
PROGRAM_FILE = "predictor.stablehlo"
CARD_FILE = "MODEL_CARD.md"
_NEEDED = (BUNDLE_FILE, CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE)
PARTS = (*_NEEDED, PROGRAM_FILE, CARD_FILE)
# What a run recorded of its making and a bundle keeps.
RECORDED = ("commit", "versions", "overrides", "platform", "converted", "store_fingerprint")


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds.

    Attributes:
        folder: where it lies.
        config: the resolved recipe.
        trained_on: features and encoders that the model understands.
        arrays: weights by path.
        step: training steps taken.
        scores: split -> scores.
        calibration: what `tune` chose for this step, or None.
        record: how the run was made.
    """

    folder: Path
    config: Config
    trained_on: TrainingData
    arrays: dict[str, np.ndarray]
    step: int
    scores: dict[str, dict[str, Any]]
    calibration: Calibration | None
    record: dict[str, Any]

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the columns of its model's outputs are called."""
        return output_names(predicted_beside(self.config))


def is_bundle(path: Path) -> bool:
    """Whether a folder looks like a bundle, whole or damaged."""
    return (Path(path) / BUNDLE_FILE).exists()


def write_bundle(
    bundle: Bundle, card: Callable[[dict[str, dict[str, Any]]], str], program: bytes | None
) -> None:
    """Writes the parts into `bundle.folder`, the seal last.

    Args:
        bundle: what to write.
        card: the text of MODEL_CARD.md, from the `digests` of all others.
        program: the serialized predictor, None for none.
    """
    folder = bundle.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / BUNDLE_FILE,
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "maven_jax": __version__,
            "step": bundle.step,
            "outputs": list(bundle.outputs),
            "calibration": bundle.calibration and bundle.calibration.to_json(),
            "trained_on": bundle.trained_on.to_json(),
            "record": bundle.record,
        },
    )
    write_json(folder / CONFIG_FILE, json.loads(bundle.config.to_json_best_effort()))
    write_json(folder / METRICS_FILE, bundle.scores)
    (folder / WEIGHTS_FILE).write_bytes(save(bundle.arrays, metadata={"format": FORMAT}))
    if program is not None:
        (folder / PROGRAM_FILE).write_bytes(program)
    seal(folder)
    (folder / CARD_FILE).write_text(card(digests(folder)), encoding="utf-8")
    seal(folder)


def open_bundle(folder: Path) -> Bundle:
    """Reads a bundle; nothing in it is trusted.

    Raises:
        UserError: a part is missing, damaged, no plain file, of another version, or is not what
            `write_bundle` writes. Whether weights and recipe fit each other is not checked.
    """
    folder = Path(folder)
    _check_seal(folder)
    index = read_json(folder / BUNDLE_FILE, "the index of a bundle")
    if index.get("format") != FORMAT:
        raise UserError(f"{folder / BUNDLE_FILE}: not written by `maven-jax export`")
    if index.get("version") != FORMAT_VERSION:
        raise UserError(
            f"{folder}: bundle format {index.get('version')!r}, this version of maven_jax reads "
            f"{FORMAT_VERSION}; export it again"
        )
    step, record = index.get("step"), index.get("record")
    if not isinstance(step, int) or isinstance(step, bool) or not isinstance(record, dict):
        raise UserError(f"{folder / BUNDLE_FILE}: step or record are missing")
    # Earlier versions tuned widths of box filters alone.
    tuned, where = index.get("calibration", index.get("smoothing")), str(folder / BUNDLE_FILE)
    trained_on = TrainingData.from_json(index.get("trained_on") or {}, where)
    config = _read_config(folder / CONFIG_FILE)
    if tuple(config.data.modalities) != tuple(trained_on.modalities):
        raise UserError(
            f"{folder}: {CONFIG_FILE} takes {', '.join(map(str, config.data.modalities))}, "
            f"{BUNDLE_FILE} describes {', '.join(trained_on.modalities)}"
        )
    return Bundle(
        folder=folder,
        config=config,
        trained_on=trained_on,
        arrays=_read_weights(folder / WEIGHTS_FILE),
        step=step,
        scores=read_json(folder / METRICS_FILE, "scores by split", {str: dict}),
        calibration=None if tuned is None else Calibration.from_json(tuned, where),
        record=record,
    )


def read_program(folder: Path) -> bytes:
    """The serialized predictor of a bundle, as it was written.

    Raises:
        UserError: the bundle has none, or is damaged.
    """
    _check_seal(folder)
    if not (folder / PROGRAM_FILE).exists():
        raise UserError(f"{folder}: was exported without {PROGRAM_FILE}")
    return (folder / PROGRAM_FILE).read_bytes()


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Part -> `bytes` and `sha256`, as the seal has them."""
    return read_seal(folder)


def _check_seal(folder: Path) -> None:
    """Raises UserError unless the parts are plain files as they were written."""
    for name in (SEAL, *PARTS):
        path = folder / name
        try:
            kind = path.lstat().st_mode
        except FileNotFoundError:
            if name in _NEEDED or name == SEAL:
                raise UserError(f"{folder}: no whole bundle, {name} is missing") from None
            continue
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        if not stat.S_ISREG(kind):
            raise UserError(f"{path}: not a plain file (links and devices are not followed)")
    sealed = digests(folder)
    foreign = [name for name in sealed if name not in PARTS]
    unsealed = [name for name in PARTS if (folder / name).exists() and name not in sealed]
    if foreign or unsealed:
        name = (foreign + unsealed)[0]
        raise UserError(f"{folder / SEAL}: {name!r} is not a sealed part of a bundle")
    fault = find_fault(folder)
    if fault is not None:
        raise UserError(f"{folder}: damaged, {fault}; copy or export it again")


def _read_config(path: Path) -> Config:
    content = read_json(path, "a resolved recipe")
    try:
        config = recipes.from_record(content)
        check_sections(config)
        refuse_own_file(config)
        as_widths(config.eval.smooth_frames, "eval.smooth_frames")
    except (UserError, ValueError, TypeError, AttributeError, KeyError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a resolved recipe ({line[:200]})") from None
    return config


def refuse_own_file(config: Config) -> None:
    """Raises UserError if the model is not one of this package: opening a bundle runs no code."""
    for name in own_files.class_names(recipes.plain(config)):
        raise UserError(f"the model is in a file of its own, {name}: no part of a bundle")


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged or no safetensors file ({error})") from None


def arrays_of(weights: Weights) -> dict[str, np.ndarray]:
    """Weights by path: `params/…`, `state/<collection>/…`, `statistics/{mean,std}/<modality>`."""
    trees = {
        "params": weights.params,
        "state": weights.model_state,
        "statistics": {"mean": weights.statistics.mean, "std": weights.statistics.std},
    }
    return {path: np.asarray(x) for path, x in flatten_dict(trees, sep="/").items()}


def weights_of(arrays: Mapping[str, Any], source: str) -> Weights:
    """The inverse of `arrays_of`, of NumPy or of traced arrays.

    Raises:
        UserError: a name that it does not write.
    """
    tree: dict[str, Any] = {"params": {}, "state": {}, "statistics": {"mean": {}, "std": {}}}
    for path, array in arrays.items():
        *parts, last = path.split("/")
        node: Any = tree
        for i, part in enumerate(parts):
            # Below `params` and `state` any name may begin a new level.
            expected = part in node or (i and parts[0] in ("params", "state"))
            if not isinstance(node, dict) or not expected:
                raise UserError(f"{source}: no weights are called {path!r}")
            node = node.setdefault(part, {})
        if not parts or not isinstance(node, dict) or last in node:
            raise UserError(f"{source}: no weights are called {path!r}")
        node[last] = array
    return Weights(
        params=tree["params"],
        model_state=tree["state"],
        statistics=FeatureStatistics(**tree["statistics"]),
    )
