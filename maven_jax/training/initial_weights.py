"""Weights that a training starts from: converted encoders and other runs' checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.experiment import check_features as check_kinds
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runs import bundle
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.trained_model import open_model
from maven_jax.runs.workdir import CONFIG_FILE, read_record
from maven_jax.state import Weights, count_parameters, put_weights


def read_folder(folder: Path) -> dict[str, Any]:
    """The variables that a folder holds, as `Checkpoints.read_weights` gives them.

    Args:
        folder: the workdir of a run or of `maven-jax convert` (its best checkpoint is taken), a
            bundle of `maven-jax export`, or a folder that `convert.huggingface.load_encoder` opens.

    Raises:
        UserError: none of them is there.
    """
    if (folder / "checkpoints").is_dir():
        checkpoints = Checkpoints(folder, keep_latest=1, keep_best=1, read_only=True)
        saved = checkpoints.read_weights(checkpoints.resolve("best"))
        checkpoints.close()
        return saved
    if bundle.is_bundle(folder):
        model = open_model(folder)
        return {"params": model.weights.params, "model_state": model.weights.model_state}
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    # Imported here to start faster: few runs begin with an encoder by itself.
    from maven_jax.convert.huggingface import load_encoder

    encoder = load_encoder(str(folder))
    return {"params": encoder.params, "model_state": encoder.state}


def init_from(config: Config, folder: str) -> None:
    """Sets a recipe so that the whole model begins with the weights in `folder`.

    Raises:
        UserError: the recipe takes weights of modules from elsewhere, and nothing says which of
            them should win.
    """
    others = [key for key, source in config.train.init.items() if source and source != folder]
    if others:
        raise UserError(
            f"--init-from {folder}: config.train.init.{others[0]} is set too; use one of the two"
        )
    with config.train.init.unlocked(), config.train.init.ignore_type():
        config.train.init["/"] = folder


def start_from(weights: Weights, experiment: Experiment) -> Weights:
    """Replaces fresh weights by those of converted encoders and other runs.

    Args:
        weights: fresh ones of the model.
        experiment: what is trained. Its `train.init`: path of a module within the model
            (`encoder_visual`, `fusion/head`; `/` is the whole model) -> a folder (see
            `read_folder`) whose weights are put there; None leaves the fresh ones. The feature
            statistics stay those of the store.

    Returns:
        The weights, laid out on devices as they were.

    Raises:
        UserError: a folder without weights, weights of other names or shapes than the module's,
            or a whole model that was trained on features of other encoders than the store holds.
    """
    for where, folder in recipes.plain(experiment.config.train.init).items():
        if folder is None:
            continue
        source = f"config.train.init.{where}: {folder}"
        if not where.strip("/"):
            check_features(Path(folder), experiment, source)
        variables = read_folder(Path(folder))
        weights = put_weights(weights, variables, where, source)
        count = count_parameters(variables["params"])
        say(f"{where} starts from {folder} ({count:,} parameters)")
    return weights


def check_features(folder: Path, experiment: Experiment, source: str) -> None:
    """Raises UserError unless a whole model was trained on the kinds of features of the new run.

    Shapes alone do not tell: many encoders are equally wide.

    Args:
        folder: a workdir or a bundle that holds the model.
        experiment: the new run.
        source: what is wrong there, for messages.
    """
    if bundle.is_bundle(folder):
        parts = bundle.open_bundle(folder)
        modalities, kinds = parts.config.data.modalities, parts.trained_on.kinds()
        released = "converted" in parts.record
    elif (folder / CONFIG_FILE).exists():
        config, record = read_record(folder)
        modalities, kinds = config.data.modalities, record["features"]
        released = "converted" in record
    else:
        return  # an encoder by itself: only names and shapes are known of it
    if tuple(modalities) != tuple(experiment.modalities):
        raise UserError(
            f"{source} takes {', '.join(modalities)}, "
            f"config.data.modalities is {', '.join(experiment.modalities)}"
        )
    try:
        # Released weights come without the names of what they were trained on.
        check_kinds(experiment.store, kinds, identity=not released)
    except UserError as error:
        raise UserError(
            f"{source}: {error}; prepare the store with the encoders of that run, or let the "
            "recipe's train.init name modules behind the features instead of the whole model"
        ) from None
