"""Folders of converted encoders: `encoder.json` for what it is, an orbax checkpoint of weights.

`huggingface.load_encoder` opens them as it opens Hugging Face's folders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict
from jax.typing import DTypeLike

from maven_jax.convert.loaded import LoadedEncoder, variable_shapes
from maven_jax.encoders.registry import kind_of, make_encoder
from maven_jax.errors import UserError, listing
from maven_jax.files import write_json
from maven_jax.inputs import read_json
from maven_jax.runtime.array_folders import reading
from maven_jax.runtime.seal import find_fault, is_sealed, seal
from maven_jax.version import __version__

RECORD_FILE = "encoder.json"
WEIGHTS_FOLDER = "weights"


def is_encoder_folder(folder: Path) -> bool:
    """Whether `save_encoder` wrote it, to the end."""
    return (folder / RECORD_FILE).is_file()


def save_encoder(
    folder: Path,
    kind: str,
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    source: str,
    sha256: str,
) -> None:
    """Writes an encoder, its weights sealed; the record last: a folder that has it is whole.

    Args:
        folder: made if need be; may hold other things, but no encoder.
        kind: one of `encoders.registry.KINDS`.
        config: sizes; those that it leaves out are written down too.
        params: parameters.
        state: collection -> other variables.
        source: where the weights came from, for the records of features made with them.
        sha256: of the file they came from.

    Raises:
        UserError: the folder holds an encoder already, or the variables are not those of the
            config.
    """
    if (folder / WEIGHTS_FOLDER).exists() or is_encoder_folder(folder):
        raise UserError(f"{folder}: holds an encoder already; take another folder")
    sizes = kind_of(kind).read(config)
    variables = {"params": dict(params), **state}
    _check_shapes(folder, kind, _shapes(variables), variable_shapes(kind, config))
    folder.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / WEIGHTS_FOLDER).resolve(), variables)
    seal(folder)
    write_json(
        folder / RECORD_FILE,
        {
            "kind": kind,
            "config": dict(config) | dataclasses.asdict(sizes),
            "source": source,
            "sha256": sha256,
            "maven_jax": __version__,
        },
    )


def read_record(folder: Path, kind: str | None) -> dict[str, Any]:
    """The record of an encoder that `save_encoder` wrote.

    Raises:
        UserError: it is damaged, or of another kind than `kind`.
    """
    path = folder / RECORD_FILE
    pattern = {"kind": str, "config": dict, "source": str, "sha256": str}
    record = read_json(path, "the record of a converted encoder", pattern)
    if kind is not None and record["kind"] != kind:
        raise UserError(f"{path}: kind is {record['kind']!r}, not {kind!r}")
    return record


def load_encoder_folder(
    folder: Path, *, kind: str | None = None, dtype: DTypeLike = jnp.float32
) -> LoadedEncoder:
    """An encoder that `save_encoder` wrote.

    Args:
        folder: its folder.
        kind: what it must be; None takes what the record says.
        dtype: of the computation.

    Raises:
        UserError: the folder is damaged, or holds another kind.
    """
    path, record = folder / RECORD_FILE, read_record(folder, kind)
    try:
        module = make_encoder(record["kind"], record["config"], dtype=dtype)
        shapes = variable_shapes(record["kind"], record["config"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    variables = _restore(folder, record["kind"], shapes)
    return LoadedEncoder(
        kind=record["kind"],
        config=record["config"],
        module=module,
        params=variables.pop("params"),
        sha256=record["sha256"],
        source=record["source"],
        folder=folder,
        state=variables,
    )


def _restore(folder: Path, kind: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, Any]:
    weights = (folder / WEIGHTS_FOLDER).resolve()
    if not weights.is_dir():
        raise UserError(f"{folder}: damaged, {WEIGHTS_FOLDER} is missing")
    # Tensorstore finds damage in what describes the arrays, but not in their values.
    if is_sealed(folder) and (fault := find_fault(folder)):
        raise UserError(f"{folder}: damaged, {fault}; convert it again")
    with reading(weights), ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.metadata(weights).item_metadata.tree
        _check_shapes(folder, kind, _shapes(tree), shapes)
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=device), tree
        )
        return dict(checkpointer.restore(weights, like))


def _shapes(variables: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    paths = flatten_dict(dict(variables), sep="/")
    return {path.removeprefix("params/"): tuple(leaf.shape) for path, leaf in paths.items()}


def _check_shapes(
    folder: Path,
    kind: str,
    saved: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    problems = [f"{path} is missing" for path in expected if path not in saved]
    problems += [f"{path} is not one of its variables" for path in saved if path not in expected]
    problems += [
        f"{path} has shape {saved[path]}, not {shape.shape}"
        for path, shape in expected.items()
        if path in saved and saved[path] != shape.shape
    ]
    if problems:
        raise UserError(f"{folder}: not the {kind} encoder of its config; {listing(problems)}")
