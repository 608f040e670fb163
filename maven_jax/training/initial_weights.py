"""Weights that a training starts from: converted encoders and other runs' checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maven_jax import experiment, recipes
from maven_jax.errors import UserError
from maven_jax.progress import say
from maven_jax.recipes import Config
from maven_jax.runs import bundle
from maven_jax.runs.checkpoint import Checkpoints
from maven_jax.runs.workdir import CONFIG_FILE, read_record
from maven_jax.state import Weights, count_parameters, put_weights
from maven_jax.store.reader import Store


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
        from maven_jax.runs.trained_model import open_model

        model = open_model(folder)
        return {"params": model.weights.params, "model_state": model.weights.model_state}
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    from maven_jax.convert.huggingface import load_encoder

    encoder = load_encoder(str(folder))
    return {"params": encoder.params, "model_state": encoder.state}


def init_from(config: Config, folder: str) -> None:
    """Notes in a recipe that the whole model begins with the weights in `folder`.

    Raises:
        UserError: the recipe takes weights of modules from elsewhere; which come on top is not
            for us to say.
    """
    others = [where for where, there in config.train.init.items() if there and there != folder]
    if others:
        raise UserError(
            f"--init-from {folder}: config.train.init.{others[0]} is set too; take one of them"
        )
    with config.train.init.unlocked(), config.train.init.ignore_type():
        config.train.init["/"] = folder


def start_from(weights: Weights, config: Config, store: Store) -> Weights:
    """Puts weights of converted encoders and of other runs in the place of fresh ones.

    Args:
        weights: fresh ones of the model.
        config: `train.init`: path of a module within the model (`encoder_visual`, `fusion/head`;
            `/` is the whole model) -> a folder (see `read_folder`) whose weights are put there;
            None leaves the fresh ones. The feature statistics stay those of the store.
        store: that is trained on.

    Returns:
        The weights, laid out on devices as they were.

    Raises:
        UserError: a folder without weights, weights of other names or shapes than the module's,
            or a whole model that was trained on features of other encoders than the store holds.
    """
    for where, folder in recipes.plain(config.train.init).items():
        if folder is None:
            continue
        source = f"config.train.init.{where}: {folder}"
        if not where.strip("/"):
            check_features(Path(folder), tuple(config.data.modalities), store, source)
        found = read_folder(Path(folder))
        weights = put_weights(weights, found, where, source)
        count = count_parameters(found["params"])
        say(f"{where} starts from {folder} ({count:,} parameters)")
    return weights


def check_features(folder: Path, modalities: tuple[str, ...], store: Store, source: str) -> None:
    """Raises UserError unless a whole model understands what it is to be trained on now.

    Shapes alone do not tell: many encoders are equally wide.

    Args:
        folder: a workdir or a bundle that holds the model.
        modalities: that the new run takes, in its order.
        store: whose features those are.
        source: what is wrong there, for messages.
    """
    if bundle.is_bundle(folder):
        parts = bundle.open_bundle(folder)
        known, kinds = parts.config.data.modalities, parts.trained_on.kinds()
        released = "converted" in parts.record
    elif (folder / CONFIG_FILE).exists():
        config, record = read_record(folder)
        known, kinds = config.data.modalities, record["features"]
        released = "converted" in record
    else:
        return  # an encoder of its own: nothing but names and shapes is known of it
    if tuple(known) != modalities:
        raise UserError(
            f"{source} takes {', '.join(known)}, config.data.modalities is {', '.join(modalities)}"
        )
    try:
        # Released weights come without the names of what they were trained on.
        experiment.check_features(store, kinds, identity=not released)
    except UserError as error:
        raise UserError(
            f"{source}: {error}; prepare the store with the encoders of that run, or let the "
            "recipe's train.init name modules behind the features instead of the whole model"
        ) from None
