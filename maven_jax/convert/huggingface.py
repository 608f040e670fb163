"""Encoders from Hugging Face checkpoints, local or from the hub, and untrained ones."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from maven_jax.convert import native, sources
from maven_jax.convert.encoder_tables import TABLES, Entry, entries
from maven_jax.convert.heads import read_head
from maven_jax.convert.loaded import LoadedEncoder, nested, variable_shapes
from maven_jax.convert.tensor_files import Tensors
from maven_jax.encoders.registry import make_encoder
from maven_jax.errors import UserError, listing

_OLD_NAMES = (
    (r"(LayerNorm|layer_norm|layernorm\w*)\.gamma$", r"\1.weight"),
    (r"(LayerNorm|layer_norm|layernorm\w*)\.beta$", r"\1.bias"),
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
)
_BEFORE_RECTIFIER = re.compile(r"^conv|(^|/)(conv\d?|space|time|stem_conv)/kernel$")
# Of the last norm of untrained residual blocks. Norms with made-up statistics normalise nothing,
# and over two dozen blocks the sums would grow by orders of magnitude.
_RESIDUAL_SCALE = 0.3
# Random encoders stand in for published ones, which are no larger.
MOST_RANDOM = 500_000_000
_BATCH_NORM_EPS = 1e-5  # PyTorch's default, which the configs cannot change


def _about(module: nn.Module) -> Any:
    """What the tables read of an encoder: its config, or of BEiT the module itself."""
    return getattr(module, "config", module)


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


def _folded(stem: str, tensors: dict[str, _Source]) -> dict[str, _Source]:
    """Weight norm and batch norm under `stem`, folded to what the tables name."""
    g, v = tensors.get(f"{stem}.weight_g"), tensors.get(f"{stem}.weight_v")
    if g and v:
        read = lambda: _fold_weight_norm(g.read(), v.read())  # noqa: E731
        return {f"{stem}.weight": _Source(v.shape, read, g.names + v.names)}
    mean, variance, scale, bias = (
        tensors.get(f"{stem}.{name}") for name in ("running_mean", "running_var", "weight", "bias")
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


def _renamed(kind: str, tensors: Tensors) -> dict[str, _Source]:
    """All tensors, under their present names."""
    sources: dict[str, _Source] = {}
    for name, shape in tensors.shapes.items():
        new = name
        for pattern, replacement in (*_OLD_NAMES, *TABLES[kind].renames):
            new = re.sub(pattern, replacement, new)
        sources[new] = _Source(shape, lambda name=name: tensors.read(name), (name,))
    return sources


def _inside(kind: str, sources: dict[str, _Source], anchor: str) -> dict[str, _Source]:
    """The encoder's tensors under the names that the tables use: no prefix, norms folded."""
    prefixes = [
        name[: -len(anchor)] for name in sources if name == anchor or name.endswith("." + anchor)
    ]
    # A checkpoint of several models may hold two encoders that look alike: ours is named so.
    prefix = min(prefixes, key=lambda p: (not p.endswith(f"{kind}."), len(p)), default="")
    inside = {n.removeprefix(prefix): s for n, s in sources.items() if n.startswith(prefix)}
    for stem in {name.rpartition(".")[0] for name in inside}:
        inside.update(_folded(stem, inside))
    return inside


def _check(
    kind: str,
    where: Path,
    table: list[Entry],
    sources: dict[str, _Source],
    shapes: dict[str, jax.ShapeDtypeStruct],
) -> list[str]:
    """Names of missing tensors that are optional.

    Raises:
        UserError: a tensor that is needed is missing, or a shape differs.
    """
    missing, wrong = [], []
    for entry in table:
        expected = entry.source_shape(shapes[entry.target].shape)
        if entry.source not in sources:
            missing.append(entry)
        elif sources[entry.source].shape != expected:
            has = sources[entry.source].shape
            wrong.append(f"{entry.source} has shape {has}, not {expected}")
    needed = [e for e in missing if e.source not in TABLES[kind].optional]
    problems = []
    if needed:
        names = [f"{e.source} {e.source_shape(shapes[e.target].shape)}" for e in needed]
        problems.append(f"{len(names)} tensors are missing: {listing(names)}")
    if wrong:
        problems.append(f"{len(wrong)} do not fit config.json: {listing(wrong)}")
    if problems:
        raise UserError(f"{where}: not the {kind} encoder of config.json; {'; '.join(problems)}")
    return [e.source for e in missing]


def _assemble(
    table: list[Entry], sources: dict[str, _Source], shapes: dict[str, jax.ShapeDtypeStruct]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters, layer by layer into their stacks, and the other collections."""
    flat = {path: np.zeros(shape.shape, np.float32) for path, shape in shapes.items()}
    for entry in table:
        if entry.source in sources:
            target = flat[entry.target] if entry.layer is None else flat[entry.target][entry.layer]
            target[...] = entry.conversion.convert(sources[entry.source].read(), target.shape)
    for path, value in flat.items():
        if not np.isfinite(value).all():  # a negative variance, a direction without length
            raise UserError(f"the weights give values in {path} that are not finite")
    return nested({path: jnp.asarray(value) for path, value in flat.items()})


def load_encoder(
    source: str | Path,
    *,
    kind: str | None = None,
    dtype: DTypeLike = jnp.float32,
    head: bool = False,
    sizes: Mapping[str, Any] | None = None,
) -> LoadedEncoder:
    """An encoder from a local folder or file, or a hub id, optionally "owner/name@revision".

    Args:
        source: folder that `native.save_encoder` wrote, or with the config.json of Hugging Face
            or timm and weights (`tensor_files.WEIGHT_FILES`); file of weights of one of
            `sources.FILE_KINDS`; or hub id.
        kind: what it must be; None takes what the folder says.
        dtype: of the computation.
        head: read what it was trained to tell, too.
        sizes: those that a file of weights does not tell.

    Raises:
        UserError: it cannot be found, is damaged or unsafe, is of another kind, or lacks tensors
            or the head.
    """
    folder = sources.find_folder(Path(source).expanduser())
    if native.is_encoder_folder(folder):
        if head:
            raise UserError(f"{folder}: holds no trained head; take output=embedding")
        return native.load_encoder_folder(folder, kind=kind, dtype=dtype)
    found = sources.find(source, kind, sizes or {})
    kind, config = found.kind, found.config
    try:
        module = make_encoder(kind, config, dtype=dtype)
        shapes = variable_shapes(kind, config)
    except UserError as error:
        raise UserError(f"{found.where}/{error}") from None
    tensors = found.read()
    table = list(entries(kind, _about(module)))
    renamed = _renamed(kind, tensors)
    inside = _inside(kind, renamed, table[0].source)
    missing = _check(kind, found.where, table, inside, shapes)
    used = {name for e in table if e.source in inside for name in inside[e.source].names}
    told = None
    try:
        params, state = _assemble(table, inside, shapes)
        if head:
            every = {name: tensor.shape for name, tensor in renamed.items()}
            layers, values, names = read_head(kind, found.about, every, lambda n: renamed[n].read())
            told = (layers, values)
            used.update(name for n in names for name in renamed[n].names)
    except UserError as error:
        raise UserError(f"{found.where}: {error}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{found.where}: the weights cannot be read ({error})") from None
    counters = {name for name in tensors.shapes if name.endswith(".num_batches_tracked")}
    return LoadedEncoder(
        kind=kind,
        config=config,
        module=module,
        params=params,
        sha256=tensors.sha256,
        source=str(source),
        folder=found.folder,
        revision=found.revision,
        unused=sorted(set(tensors.shapes) - used - counters),
        missing=missing,
        state=state,
        head=told,
    )


def _random_tensor(
    entry: Entry, shape: tuple[int, ...], layer_scale: float, rng: np.random.Generator
) -> np.ndarray:
    """An initial value in the checkpoint's layout, where a kernel's first axis is its output."""
    block, _, leaf = entry.target.rpartition("/")
    if leaf == "kernel":
        # Behind the convolutions follow rectifier-like activations, which halve the power.
        gain = 2.0 if _BEFORE_RECTIFIER.search(entry.target) else 1.0
        stddev = math.sqrt(gain / math.prod(shape[1:]))
    elif leaf.endswith(("embedding", "_token", "_tokens", "relative_position_bias")):
        stddev = 0.02
    else:
        constants = {
            "attention_scale": layer_scale,
            "mlp_scale": layer_scale,
            "slope": 0.25,
            "var": 1.0,
        }
        value = constants.get(leaf, 1.0 if leaf.endswith("scale") else 0.0)
        if block.endswith("norm_out") and leaf == "scale":
            value = _RESIDUAL_SCALE
        return np.full(shape, value, np.float32)
    return rng.standard_normal(shape, np.float32) * np.float32(stddev)


def random_encoder(
    kind: str, config: Mapping[str, Any], seed: int, dtype: DTypeLike = jnp.float32
) -> LoadedEncoder:
    """An untrained encoder of that config; the same bits on every machine.

    Raises:
        UserError: the kind is unknown, or the config is impossible.
    """
    module = make_encoder(kind, config, dtype=dtype)
    about = _about(module)
    shapes = variable_shapes(kind, config)
    count = sum(math.prod(shape.shape) for shape in shapes.values())
    if count > MOST_RANDOM:
        raise UserError(f"a random {kind} encoder of {count:,} parameters; at most {MOST_RANDOM:,}")
    # NumPy's generator rather than the modules' own initialisers, which would first compile.
    rng = np.random.default_rng(seed)
    layer_scale = getattr(about, "layer_scale_init", 0.0)
    table = list(entries(kind, about))
    sources, digest = {}, hashlib.sha256()
    for entry in table:
        shape = entry.source_shape(shapes[entry.target].shape)
        value = _random_tensor(entry, shape, layer_scale, rng)
        digest.update(f"{entry.source} {shape}\n".encode() + value.tobytes())
        sources[entry.source] = _Source(shape, lambda value=value: value, (entry.source,))
    params, state = _assemble(table, sources, shapes)
    return LoadedEncoder(
        kind=kind,
        config=dict(config),
        module=module,
        params=params,
        state=state,
        sha256=digest.hexdigest(),
        source="random",
        untrained=True,
    )
