"""Encoders from Hugging Face checkpoints, local or from the hub, and untrained ones."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike

from maven_jax.convert.encoder_tables import TABLES, Entry, entries
from maven_jax.convert.tensor_files import WEIGHT_FILES, Tensors, read_json, read_tensors
from maven_jax.encoders import hf_config
from maven_jax.encoders.beit import BeitStack
from maven_jax.encoders.hubert import Hubert, HubertConfig
from maven_jax.encoders.roberta import Roberta, RobertaConfig
from maven_jax.encoders.swin import Swin, SwinConfig
from maven_jax.errors import UserError

# Everything beside the weights that a user of an encoder may need; small files.
_SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?")
_OLD_NAMES = (
    (r"(LayerNorm|layer_norm|layernorm\w*)\.gamma$", r"\1.weight"),
    (r"(LayerNorm|layer_norm|layernorm\w*)\.beta$", r"\1.bias"),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)
_BATCH_NORM_EPS = 1e-5  # PyTorch's default, which the configs cannot change


@dataclass
class LoadedEncoder:
    """An encoder with its parameters.

    Attributes:
        kind: "swin", "hubert", "roberta" or "beit" (its layers only).
        config: the whole config.json.
        module: `module.apply({"params": params}, ...)` runs it.
        params: plain arrays, float32.
        sha256: of the weight files' bytes (`Tensors.sha256`); of untrained ones, of the values.
        source: the folder or hub id it came from; "random" if untrained.
        folder: where its files lie (processor and tokenizer files beside the weights).
        revision: the hub's commit, if it came from there.
        untrained: random parameters.
        unused: names of tensors in the files that the encoder has no use for.
        missing: names of tensors that the files lack and that zeros stand in for.
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


@dataclass(frozen=True)
class _BeitConfig:
    """What BEiT's layers need of its config, under Hugging Face's names and with its defaults."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    layer_scale_init_value: float = 0.1


def _beit_stack(config: Mapping[str, Any], dtype: DTypeLike) -> BeitStack:
    c = hf_config.from_hf(_BeitConfig, config)
    hf_config.check_divides(c, "num_attention_heads", "hidden_size")
    return BeitStack(
        num_layers=c.num_hidden_layers,
        num_heads=c.num_attention_heads,
        mlp_dim=c.intermediate_size,
        layer_scale_init=c.layer_scale_init_value,
        activation=c.hidden_act,
        norm_eps=c.layer_norm_eps,
        dtype=dtype,
    )


def _example(kind: str, about: Any, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Shapes of the smallest inputs that a module can be initialised with."""
    shape = jax.ShapeDtypeStruct
    if kind == "swin":
        side = about.image_size
        return (shape((1, side, side, about.num_channels), jnp.float32),)
    if kind == "hubert":
        return (shape((1, about.receptive_field_samples + about.hop_samples), jnp.float32),)
    if kind == "roberta":
        return shape((1, 2), jnp.int32), shape((1, 2), jnp.bool_)
    return (shape((1, 2, int(config.get("hidden_size", 768))), jnp.float32),)


def _create(kind: str, config: Mapping[str, Any], dtype: DTypeLike) -> tuple[nn.Module, Any]:
    """The module, and what the tables want to know of it.

    Raises:
        UserError: the kind is unknown, or the config is impossible.
    """
    if kind == "swin":
        about = SwinConfig.from_hf(config)
        return Swin(about, dtype), about
    if kind == "hubert":
        about = HubertConfig.from_hf(config)
        return Hubert(about, dtype), about
    if kind == "roberta":
        about = RobertaConfig.from_hf(config)
        return Roberta(about, dtype), about
    if kind == "beit":
        about = _beit_stack(config, dtype)
        return about, about
    raise UserError(f"encoder kind {kind!r} is not one of {', '.join(TABLES)}")


def _parameter_shapes(
    kind: str, module: nn.Module, about: Any, config: Mapping[str, Any]
) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape of every parameter."""
    example = _example(kind, about, config)
    variables = jax.eval_shape(module.init, jax.random.key(0), *example)
    return dict(flatten_dict(nn.meta.unbox(variables)["params"], sep="/"))  # pyright: ignore


def _fold_weight_norm(g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """G · v / |v|, the length taken over the axes along which g is constant."""
    axes = tuple(i for i, n in enumerate(g.shape) if n == 1)
    v64 = v.astype(np.float64)
    return (g * v64 / np.sqrt(np.square(v64).sum(axes, keepdims=True))).astype(np.float32)


@dataclass(frozen=True)
class _Source:
    """A tensor under its present name: its shape, what makes it, and the files' names for it."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    names: tuple[str, ...]


def _folded(stem: str, found: dict[str, _Source]) -> dict[str, _Source]:
    """Weight norm and batch norm under `stem`, folded to what the tables name."""
    g, v = found.get(f"{stem}.weight_g"), found.get(f"{stem}.weight_v")
    if g and v:
        read = lambda: _fold_weight_norm(g.read(), v.read())  # noqa: E731
        return {f"{stem}.weight": _Source(v.shape, read, g.names + v.names)}
    mean, variance, scale, bias = (
        found.get(f"{stem}.{name}") for name in ("running_mean", "running_var", "weight", "bias")
    )
    if mean and variance and scale and bias:

        def factor() -> np.ndarray:
            return scale.read() / np.sqrt(variance.read() + _BATCH_NORM_EPS)

        shift = lambda: bias.read() - mean.read() * factor()  # noqa: E731
        names = (mean.names + bias.names, variance.names + scale.names)
        return {
            f"{stem}.folded_bias": _Source(bias.shape, shift, names[0]),
            f"{stem}.folded_scale": _Source(scale.shape, factor, names[1]),
        }
    return {}


def _present(kind: str, tensors: Tensors, anchor: str) -> dict[str, _Source]:
    """The tensors under the names that the tables use: no prefix, no old names, norms folded."""
    found: dict[str, _Source] = {}
    for name, shape in tensors.shapes.items():
        new = name
        for pattern, replacement in (*_OLD_NAMES, *TABLES[kind].renames):
            new = re.sub(pattern, replacement, new)
        found[new] = _Source(shape, lambda name=name: tensors.read(name), (name,))
    prefixes = [
        name[: -len(anchor)] for name in found if name == anchor or name.endswith("." + anchor)
    ]
    # A checkpoint of several models may hold two encoders that look alike: ours is named so.
    prefix = min(prefixes, key=lambda p: (not p.endswith(f"{kind}."), len(p)), default="")
    inside = {n.removeprefix(prefix): s for n, s in found.items() if n.startswith(prefix)}
    for stem in {name.rpartition(".")[0] for name in inside}:
        inside.update(_folded(stem, inside))
    return inside


def _listing(items: list[str], limit: int = 8) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _check(
    kind: str,
    where: Path,
    wanted: list[Entry],
    found: dict[str, _Source],
    shapes: dict[str, jax.ShapeDtypeStruct],
) -> list[str]:
    """Names of missing tensors that may be missing.

    Raises:
        UserError: others are missing, or a shape is another.
    """
    missing, wrong = [], []
    for entry in wanted:
        expected = entry.shape_there(shapes[entry.here].shape)
        if entry.there not in found:
            missing.append(entry)
        elif found[entry.there].shape != expected:
            has = found[entry.there].shape
            wrong.append(f"{entry.there} has shape {has}, not {expected}")
    needed = [e for e in missing if e.there not in TABLES[kind].optional]
    problems = []
    if needed:
        names = [f"{e.there} {e.shape_there(shapes[e.here].shape)}" for e in needed]
        problems.append(f"{len(names)} tensors are missing: {_listing(names)}")
    if wrong:
        problems.append(f"{len(wrong)} do not fit config.json: {_listing(wrong)}")
    if problems:
        raise UserError(f"{where}: no {kind} encoder as config.json says; {'; '.join(problems)}")
    return [e.there for e in missing]


def _assemble(
    wanted: list[Entry], found: dict[str, _Source], shapes: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, Any]:
    """The parameters, layer by layer into their stacks."""
    flat = {path: np.zeros(shape.shape, np.float32) for path, shape in shapes.items()}
    for entry in wanted:
        if entry.there in found:
            target = flat[entry.here] if entry.layer is None else flat[entry.here][entry.layer]
            target[...] = entry.conversion.convert(found[entry.there].read(), target.shape)
    return unflatten_dict({path: jnp.asarray(value) for path, value in flat.items()}, sep="/")


def _download(source: str) -> tuple[Path, str | None]:
    """The snapshot of a hub id ("name", "owner/name", "owner/name@revision") and its commit."""
    match = _HUB_ID.fullmatch(source)
    if not match:
        raise UserError(f"{source}: no such folder, and not a hub id like owner/name")
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    repo, revision = match["repo"], match["revision"]
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=20)
        names = {file.rfilename for file in info.siblings or ()}
        weights = next((name for name in WEIGHT_FILES if name in names), WEIGHT_FILES[0])
        wanted = [*_SMALL_FILES, weights]
        if weights.endswith(".json"):
            wanted.append(weights.removesuffix(weights[weights.index(".") :]) + "-*")
        folder = huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=wanted)
    except (RepositoryNotFoundError, HFValidationError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{source}: no such folder, and the hub says: {reason}") from None
    except Exception:  # network errors, which have no base class of their own in this client
        try:
            folder = huggingface_hub.snapshot_download(
                repo, revision=revision, local_files_only=True
            )
        except Exception:
            raise UserError(
                f"{source}: no such folder, not in the hub's cache, and the hub cannot be reached; "
                f"run `hf download {repo} --local-dir DIR` where it can, then give DIR instead"
            ) from None
    commit = Path(folder).name
    return Path(folder), commit if re.fullmatch(r"[0-9a-f]{40}", commit) else revision


def load_encoder(
    source: str | Path, *, kind: str | None = None, dtype: DTypeLike = jnp.float32
) -> LoadedEncoder:
    """An encoder from a local Hugging Face folder or a hub id, optionally "owner/name@revision".

    Args:
        source: folder with config.json and weights (`tensor_files.WEIGHT_FILES`), or hub id.
        kind: what it must be; None takes what config.json says.
        dtype: of the computation.

    Raises:
        UserError: it cannot be found, is damaged or unsafe, is of another kind, or lacks tensors.
    """
    folder, revision = Path(source).expanduser(), None
    if not folder.is_dir():
        folder, revision = _download(str(source))
    config = read_json(folder / "config.json")
    is_kind = config.get("model_type")
    if kind is not None and is_kind != kind:
        raise UserError(f"{folder / 'config.json'}: model_type is {is_kind!r}, not {kind!r}")
    if is_kind not in TABLES:
        raise UserError(
            f"{folder / 'config.json'}: model_type {is_kind!r} is not one of {', '.join(TABLES)}"
        )
    try:
        module, about = _create(is_kind, config, dtype)
        shapes = _parameter_shapes(is_kind, module, about, config)
    except UserError as error:
        raise UserError(f"{folder}/{error}") from None
    tensors = read_tensors(folder)
    wanted = list(entries(is_kind, about))
    found = _present(is_kind, tensors, wanted[0].there)
    missing = _check(is_kind, folder, wanted, found, shapes)
    try:
        params = _assemble(wanted, found, shapes)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: the weights cannot be read ({error})") from None
    used = {name for e in wanted if e.there in found for name in found[e.there].names}
    return LoadedEncoder(
        kind=is_kind,
        config=config,
        module=module,
        params=params,
        sha256=tensors.sha256,
        source=str(source),
        folder=folder,
        revision=revision,
        unused=sorted(set(tensors.shapes) - used),
        missing=missing,
    )


def _random_tensor(
    entry: Entry, shape: tuple[int, ...], layer_scale: float, rng: np.random.Generator
) -> np.ndarray:
    """A start value in the checkpoint's layout, where a kernel's first axis is its output."""
    leaf = entry.here.rpartition("/")[2]
    if leaf == "kernel":
        # Behind the convolutions follow rectifier-like activations, which halve the power.
        gain = 2.0 if entry.here.startswith("conv") else 1.0
        stddev = math.sqrt(gain / math.prod(shape[1:]))
    elif leaf in ("embedding", "position_embedding", "relative_position_bias"):
        stddev = 0.02
    else:
        constants = {"attention_scale": layer_scale, "mlp_scale": layer_scale}
        value = constants.get(leaf, 1.0 if leaf.endswith("scale") else 0.0)
        return np.full(shape, value, np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(stddev)


def random_encoder(
    kind: str, config: Mapping[str, Any], seed: int, dtype: DTypeLike = jnp.float32
) -> LoadedEncoder:
    """An untrained encoder of that Hugging Face config; the same bits on every machine.

    Raises:
        UserError: the kind is unknown, or the config is impossible.
    """
    module, about = _create(kind, config, dtype)
    shapes = _parameter_shapes(kind, module, about, config)
    # NumPy's generator rather than the modules' own initialisers, which would first compile.
    rng = np.random.default_rng(seed)
    layer_scale = getattr(about, "layer_scale_init", 0.0)
    wanted = list(entries(kind, about))
    found, digest = {}, hashlib.sha256()
    for entry in wanted:
        shape = entry.shape_there(shapes[entry.here].shape)
        value = _random_tensor(entry, shape, layer_scale, rng)
        digest.update(f"{entry.there} {shape}\n".encode() + value.tobytes())
        found[entry.there] = _Source(shape, lambda value=value: value, (entry.there,))
    return LoadedEncoder(
        kind=kind,
        config=dict(config),
        module=module,
        params=_assemble(wanted, found, shapes),
        sha256=digest.hexdigest(),
        source="random",
        untrained=True,
    )
