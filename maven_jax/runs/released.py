"""From a released fusion network's state dict to a workdir that `maven-jax evaluate` opens."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from maven_jax import recipes
from maven_jax.convert import released_tables
from maven_jax.convert.backbones import Taken, refuse_problems, take_encoder
from maven_jax.convert.loaded import nested
from maven_jax.convert.native import save_encoder
from maven_jax.convert.released_tables import Table
from maven_jax.convert.tensor_files import Tensors
from maven_jax.errors import UserError
from maven_jax.files import write_json
from maven_jax.models import registry
from maven_jax.recipes import Config
from maven_jax.runs.workdir import CONFIG_FILE
from maven_jax.version import __version__

_VERSIONS = ("jax", "flax", "orbax-checkpoint", "numpy")


@dataclass(frozen=True)
class Network:
    """A fusion network that its authors released.

    Attributes:
        about: what it is, for `--help`.
        recipe: name of the recipe that builds it.
        widths: modality -> width of its features.
        encoders: modality -> kind of the encoder that its authors took.
        table: from the recipe to what its tensors become.
        changes: keys of the recipe's model section in which the release differs from the recipe.
        one_dimension: it predicts valence or arousal, and the file does not say which.
        inside: encoders that its state dict holds: prefix -> (kind, modality).
        gates: it has gates, whose tensors are told by their shapes.
    """

    about: str
    recipe: str
    widths: dict[str, int]
    encoders: dict[str, str]
    table: Callable[[Config], Table]
    changes: dict[str, Any] = field(default_factory=dict)
    one_dimension: bool = False
    inside: dict[str, tuple[str, str]] = field(default_factory=dict)
    gates: bool = False

    def config(self, dimension: str | None = None, overrides: Sequence[str] = ()) -> Config:
        """The recipe that builds the network.

        Args:
            dimension: valence (if it is None) or arousal, for networks that predict one.
            overrides: `--config.section.key=value` words.

        Raises:
            UserError: an unknown key.
        """
        variant = f":{dimension or 'valence'}" if self.one_dimension else ""
        config = recipes.load(self.recipe + variant)
        config.model.update(self.changes)
        config.data.modalities = tuple(self.widths)
        recipes.override(config, overrides)
        return config


_MAVEN = {
    "widths": {"visual": 1024, "audio": 768, "text": 768},
    "encoders": {"visual": "swin", "audio": "hubert", "text": "roberta"},
    "table": released_tables.maven,
}

_DENSE = {
    "temporal": "tcn",
    "kernel_size": 5,
    "correlation": "dense",
    "num_steps": 2,
    "share_weights": False,
    "joint": "concat",
    "correlation_dropout_rate": 0.6,
    "head_dim": 256,
}
_INSIDE = {
    "spatial.visual.backbone.": ("iresnet50", "visual"),
    "spatial.audio.backbone.": ("vggish", "audio"),
}


def _gated(name: str, about: str) -> Network:
    """GRJCA or HGRJCA."""
    return Network(
        f"{about} of face and voice, one dimension",
        name,
        widths={m: released_tables.RJCMA_WIDTHS[m] for m in ("visual", "audio")},
        encoders={"visual": "iresnet50", "audio": "vggish"},
        table=released_tables.grjca,
        changes=_DENSE
        | {
            "channels": {"visual": (512, 512, 256, 256), "audio": (128,) * 4},
            "query": "linear",
            "unit_length": True,
        },
        one_dimension=True,
        inside=_INSIDE,
        gates=True,
    )


NETWORKS: dict[str, Network] = {
    "maven-mlp": Network(
        "MAVEN with a per-frame MLP, the network that its authors test",
        "maven_released:mlp",
        **_MAVEN,
    ),
    "maven-beit": Network(
        "MAVEN with two BEiT stacks in parallel", "maven_released:beit", **_MAVEN
    ),
    "rjca": Network(
        "RJCA's fusion of face and voice, without its encoders (tsav)",
        "rjca",
        widths={"visual": 49 * 512, "audio": 512},
        encoders={"visual": "r2plus1d", "audio": "audio_resnet18"},
        table=released_tables.rjca,
        changes={
            "pooled": "visual",
            "guide": "audio",
            "positions": 49,
            "layout": "released",
            "lstm_dim": 512,
            "lstm_layers": 2,
            "correlation": "dense",
            "num_steps": 1,
            "share_weights": False,
            "joint": "concat",
            "query": "linear",
            "correlation_dropout_rate": 0.6,
            "joint_lstm_dim": 512,
            "head_dim": 128,
        },
    ),
    "rjcma": Network(
        "RJCMA, one dimension; its encoders go to OUT/encoders/visual and OUT/encoders/audio",
        "rjcma",
        widths=released_tables.RJCMA_WIDTHS,
        encoders={"visual": "iresnet50", "audio": "vggish", "text": "bert"},
        table=released_tables.rjcma,
        changes=_DENSE
        | {
            "channels": {
                "visual": (512, 512, 256, 256),
                "audio": (128,) * 4,
                "text": (256, 256, 128, 128),
            },
            "query": "identity",
        },
        one_dimension=True,
        inside=_INSIDE,
    ),
    "grjca": _gated("grjca", "GRJCA's fusion"),
    "hgrjca": _gated("hgrjca", "HGRJCA's fusion"),
}


def network_shapes(config: Config, widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Path -> shape of all variables of the recipe's model; parameters without collection.

    Args:
        config: the recipe.
        widths: modality -> width of its features.
    """
    section = recipes.plain(config.model)
    name = section.pop("name")
    recipes.check_keys(registry.MODELS[name], section, "model", ("modalities", "target_mean"))
    model = registry.create(name, modalities=tuple(widths), target_mean=(0.0, 0.0), **section)
    frames = config.data.window.length
    features = {m: jax.ShapeDtypeStruct((1, frames, c), jnp.float32) for m, c in widths.items()}
    mask = jax.ShapeDtypeStruct((1, frames), jnp.bool_)

    def init(features: Any, masks: Any, frame_mask: Any) -> Any:
        return model.init(jax.random.key(0), features, masks, frame_mask, train=False)

    variables = nn.meta.unbox(jax.eval_shape(init, features, dict.fromkeys(widths, mask), mask))
    return {
        path.removeprefix("params/"): leaf.shape
        for path, leaf in flatten_dict(variables, sep="/").items()
    }


def check_tensors(
    what: str,
    table: Table,
    tensors: Tensors,
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    encoders: Sequence[Taken] = (),
) -> None:
    """Raises a UserError that names every tensor that is missing, unknown or of another shape.

    Args:
        what: the file and the network, for the message.
        table: of the network.
        tensors: of the file.
        names: the table's name of a tensor -> the file's.
        shapes: of our variables.
        encoders: those that the file holds too.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for piece in table.pieces:
        expected |= dict.fromkeys(piece.sources, piece.source_shape(shapes[piece.target]))
    expected |= {copy: expected[name] for name, copy in table.duplicates if copy in names}
    saved = {name: tensors.shapes[in_file] for name, in_file in names.items()}
    in_table = table.names()
    refuse_problems(
        what,
        missing=[f"{name} {shape}" for name, shape in expected.items() if name not in saved]
        + [name for taken in encoders for name in taken.missing],
        misshaped=[
            f"{names[name]} has shape {saved[name]}, not {shape}"
            for name, shape in expected.items()
            if name in saved and saved[name] != shape
        ]
        + [name for taken in encoders for name in taken.misshaped],
        unknown=[in_file for name, in_file in names.items() if name not in in_table]
        + [name for taken in encoders for name in taken.unknown],
    )


def fill(
    table: Table, tensors: Tensors, names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Our variables by path, from tensors that `check_tensors` lets through.

    Raises:
        UserError: two tensors that have to be one differ.
    """
    for name, copy in table.duplicates:
        if copy in names and not np.array_equal(
            tensors.read(names[name]), tensors.read(names[copy])
        ):
            raise UserError(
                f"{names[name]} and {names[copy]} are two names of one tensor, but they differ"
            )
    flat = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    filled = set(table.start)
    for piece in table.pieces:
        tensor = tensors.read(names[piece.sources[0]])
        for name in piece.sources[1:]:
            tensor = tensor + tensors.read(names[name])
        target = flat[piece.target] if piece.layer is None else flat[piece.target][piece.layer]
        target[...] = piece.conversion.convert(tensor, target.shape)
        filled.add(piece.target)
    assert filled == flat.keys(), sorted(filled ^ flat.keys())
    return flat


def convert_network(
    name: str,
    file: Path,
    tensors: Tensors,
    out: Path,
    *,
    source: str,
    dimension: str | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Writes a released fusion network as a workdir: `config.json` and a checkpoint, step 0.

    Args:
        name: key of `NETWORKS`.
        file: where the tensors come from, for messages.
        tensors: its tensors.
        out: folder to write to; it must be empty or absent.
        source: the file and the place in it, for the record.
        dimension: valence or arousal, for networks that predict one.
        overrides: changes of the recipe, `--config.section.key=value`.

    Returns:
        Lines that say what was written and what was left out.

    Raises:
        UserError: a tensor is missing, unknown or misshaped; or an override is wrong.
    """
    network = NETWORKS[name]
    config = network.config(dimension, overrides)
    table = network.table(config)
    shapes = network_shapes(config, network.widths)
    encoders = {
        modality: (kind, take_encoder(kind, {}, tensors, prefix=prefix))
        for prefix, (kind, modality) in network.inside.items()
        if any(n.startswith(prefix) for n in tensors.shapes)
    }
    inside = tuple(network.inside)
    names = {table.renamed(n): n for n in tensors.shapes if not n.startswith(inside)}
    for name, copy in table.duplicates:  # safetensors keep one of two names of a tensor
        if name not in names and copy in names:
            names[name] = names.pop(copy)
    gates: dict[str, str] = {}
    if network.gates:
        others = {n: tensors.shapes[n] for n in names.values() if n not in table.names()}
        gates = released_tables.gate_names(table, others, shapes)
        names = {name: n for name, n in names.items() if n not in gates.values()} | gates
    taken = [taken for _, taken in encoders.values()]
    check_tensors(f"{file}: no {name}", table, tensors, names, shapes, taken)
    flat = fill(table, tensors, names, shapes)
    lines = [f"{name}: {sum(x.size for x in flat.values()):,} values from {len(names)} tensors"]
    if gates:
        pairs = [f"{n} is {name}" for name, n in gates.items() if name.endswith("weight")]
        lines.append(f"gates, told by their shapes and order: {', '.join(pairs)}")
    for modality, (kind, taken) in encoders.items():
        folder = out / "encoders" / modality
        save_encoder(
            folder, kind, {}, taken.params, taken.state, source=source, sha256=tensors.sha256
        )
        lines.append(f"{folder}: {kind} from {len(taken.used)} tensors")
    if len(encoders) < len(network.inside):
        lines.append(f"{file.name} lacks encoders that {name} may bring: convert them on their own")
    write_workdir(out, flat, _record(name, network, config, source, tensors.sha256))
    if network.one_dimension and dimension is None:
        lines.append("the file does not say what it predicts: taken to be valence (--dimension)")
    for reason in dict.fromkeys(table.left_out.values()):
        count = sum(table.left_out.get(here) == reason for here in names)
        lines += [f"left out: {count} tensors, {reason}"] if count else []
    return lines


def _record(
    name: str, network: Network, config: Config, source: str, sha256: str
) -> dict[str, Any]:
    """What `config.json` says of a converted network."""
    features = {
        m: {"dim": width, "encoder": network.encoders.get(m), "sha256": None}
        for m, width in network.widths.items()
    }
    return {
        "config": json.loads(config.to_json_best_effort()),
        "features": features,
        "statistics": "store",
        "store_fingerprint": None,
        "converted": {
            "model": name,
            "file": source,
            "sha256": sha256,
            "versions": {
                "maven_jax": __version__,
                "python": platform.python_version(),
                **{package: importlib.metadata.version(package) for package in _VERSIONS},
            },
        },
    }


def write_workdir(out: Path, flat: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Writes variables by path and the record of where they come from."""
    params, model_state = nested(flat)
    weights = {"params": params, "model_state": model_state}
    options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(out.resolve() / "checkpoints", options=options)
    manager.save(0, args=ocp.args.Composite(weights=ocp.args.StandardSave(weights)))
    manager.close()
    # Written last: a folder without it is no workdir.
    write_json(out / CONFIG_FILE, dict(record))
