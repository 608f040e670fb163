"""The folder of a run: what made it is written there, and nothing else may run in it."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from maven_jax import own_files, recipes
from maven_jax.errors import UserError, listing
from maven_jax.experiment import Experiment, feature_kinds
from maven_jax.files import local_path, write_json
from maven_jax.inputs import read_json
from maven_jax.outputs import check_writable
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runs.training_data import TrainingData
from maven_jax.store.reader import Store
from maven_jax.version import __version__

CONFIG_FILE = "config.json"
# Its presence says that a run is complete, evaluation included.
FINISHED_FILE = "finished.json"
# Which run of each tracker this is, so that a run that continues continues there.
TRACKED_FILE = "tracked.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
# What may change when a run continues: where and how fast it runs, not what it computes.
_FREE = (
    "mesh.",
    "checkpoint.",
    "data.fold_groups",  # of it the videos that the fold holds out are compared
    "data.num_threads",
    "data.resident",
    "data.store",
    "train.log_every_steps",
    "train.mlflow",
    "train.wandb",
)

_KIND = "the config that a run wrote"
# What is read of it, whatever wrote it.
_RECORD: Any = {
    "config": {str: (dict, int)},
    "features": {str: {"dim": int, "encoder": (str, None), "sha256": (str, None)}},
    "store_fingerprint": (str, None),
}
# Keys that the configs of the first runs lack (for later ones see `recipes.from_record`).
_LATER_KEYS = {
    "data": ("fold", "mix", "resident"),
    "eval": ("smooth_frames",),
    "train": ("stages", "init"),
}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}} -> {"a.b": 1}`; an empty section keeps its own key."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def git_commit() -> str | None:
    """Commit of the clone that the package runs from, with `+` for a changed tree."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")


def provenance(overrides: list[str]) -> dict[str, Any]:
    """Versions, commit and command line of this process."""
    return {
        "overrides": overrides,
        "commit": git_commit(),
        "versions": {
            "maven_jax": __version__,
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in _PACKAGES},
        },
        "platform": jax.devices()[0].device_kind,
        "command": sys.argv[1:],
    }


# What a run writes.
_OWN_NAMES = (
    CONFIG_FILE,
    FINISHED_FILE,
    "checkpoints",
    "damaged",
    "eval",
    "metrics.jsonl",
    "mlruns",
    "plots",
    "profile",
    "tensorboard",
    TRACKED_FILE,
    "wandb",
)


def check_free(workdir: Path, config: Config) -> None:
    """Raises UserError unless a run by this recipe may be begun or continued in a folder."""
    inputs = {"config.data.store": config.data.get("store")}
    if config.data.get("synthetic"):
        inputs["config.data.synthetic.root"] = config.data.synthetic.get("root")
    for key, folder in inputs.items():
        if folder is None:
            continue
        if os.path.realpath(local_path(str(folder))) == os.path.realpath(workdir):
            raise UserError(f"{workdir}: is {key} of the recipe too; take another --workdir")
    if (workdir / CONFIG_FILE).exists():
        read_record(workdir)
        return
    # A run that is refused early leaves an empty folder of checkpoints.
    others = [name for name in _OWN_NAMES if _is_something(workdir / name)]
    if others:
        raise UserError(
            f"{workdir}: holds {listing(others)} but no {CONFIG_FILE} of a training run, so these "
            "are somebody else's; take another --workdir"
        )
    check_writable(workdir)


def _is_something(path: Path) -> bool:
    """Whether there is a file, or a folder with anything in it."""
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def claim(
    workdir: Path,
    experiment: Experiment,
    mixed: Mapping[str, Store],
    overrides: list[str],
) -> dict[str, Any]:
    """Makes a folder the workdir of this run; returns the run's description, for its checkpoints.

    Args:
        workdir: folder of the run; made if it is not there.
        experiment: what runs in it.
        mixed: the stores of `data.mix` by name.
        overrides: values set on the command line.

    Raises:
        UserError: the folder belongs to a run with another config or other features.
    """
    store = experiment.store
    resolved = json.loads(experiment.config.to_json_best_effort())
    record = {
        "config": resolved,
        "store_fingerprint": store.fingerprint,
        "mix_fingerprints": {name: other.fingerprint for name, other in mixed.items()},
        "features": feature_kinds(experiment.modalities),
        "trained_on": TrainingData.of(experiment).to_json(),
        **provenance(overrides),
    }
    if files := own_files.digests(resolved):
        record["model_files"] = files
    path = workdir / CONFIG_FILE
    if path.exists():
        earlier = read_json(path, _KIND, _RECORD)
        _compare(workdir, recipes.with_later_keys(earlier["config"]), resolved)
        before = {"": earlier["store_fingerprint"], **earlier.get("mix_fingerprints", {})}
        for name, now in {"": store, **mixed}.items():
            if before.get(name) != now.fingerprint:
                raise UserError(
                    f"{workdir} was trained on other features than {now.path} holds now; "
                    "take another --workdir"
                )
        experiment.check_held_out(held_out(earlier))
    elif jax.process_index() == 0:
        write_json(path, record)
    return record


def _free(key: str) -> bool:
    """True for values that may change; of stores the contents are compared, not the places."""
    return key.startswith(_FREE) or bool(re.fullmatch(r"data\.mix\..+\.store", key))


def _compare(workdir: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    old, new = flatten(earlier), flatten(now)
    changed = [
        f"{key} ({old.get(key, 'absent')} there, {new.get(key, 'absent')} now)"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _free(key)
    ]
    if changed:
        raise UserError(
            f"{workdir} belongs to a run with another config: {listing(changed, 3, '; ')}; "
            "take another --workdir"
        )


def read_record(workdir: Path) -> tuple[Config, dict[str, Any]]:
    """What a run recorded of itself: its resolved config, and the whole record.

    Raises:
        UserError: there is none, or its model is in a file that the user did not name.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{workdir}: no {CONFIG_FILE} here; is it the workdir of a training run?")
    record = read_json(path, _KIND, _RECORD)
    try:
        config = recipes.from_record(record["config"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for section, keys in _LATER_KEYS.items():
        for key in keys:
            if key not in config.get(section, {}):
                raise UserError(
                    f"{path}: written before config.{section}.{key} came to be; train it again, "
                    "or evaluate it with the version that it names"
                )
    try:
        recipes.check_sections(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    _check_model_files(path, config, record)
    return config, record


def held_out(record: Mapping[str, Any]) -> str | None:
    """The digest of the videos that a run's fold held out; None if its record does not say."""
    trained_on = record.get("trained_on")
    return trained_on.get("held_out") if isinstance(trained_on, Mapping) else None


def _check_model_files(path: Path, config: Config, record: Mapping[str, Any]) -> None:
    """Refuses models in files that the user did not name; says which are not those of the run."""
    for name in own_files.class_names(recipes.plain(config)):
        own_files.allowed_file(name, str(path))
    recorded = record.get("model_files", {})
    for file, sha256 in own_files.digests(recipes.plain(config)).items():
        if file in recorded and recorded[file] != sha256:
            _say_once(f"note: {path}: {file} is not as it was in training, its code differs")


@functools.cache
def _say_once(line: str) -> None:
    say(line)
