"""PyTorch's pickles as data: tensors, arrays and harmless objects beside them; nothing is run.

A class is known here by its name alone. What a file holds of it becomes a stand-in of ours, whose
making does nothing; a class without one is refused by its name.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maven_jax.errors import UserError, listing

# Where training scripts put a state dict beside other things, in order of preference.
KNOWN_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "model_state",
    "student",
    "module",
    "ema",
    "model_ema",
    "state_dict_ema",
    "params_ema",
)
# How deep below the top a state dict is looked for.
_DEPTH = 3
_MOST_PLACES = 1000
_PLAIN_DTYPE = re.compile(r"[biuf][1248]")


class _Unread:
    """Takes the place of an object that nobody reads, such as a best score or the options of a run.

    Without it, a checkpoint that has such an object beside its tensors would be refused.
    """

    def __init__(self, *args: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Dict:
    """Takes the place of a dict of another class: it makes a plain one."""

    def __new__(cls, *args: object) -> Any:
        return {}


class _Dtype:
    """A NumPy dtype: its name, and its byte order once that is known."""

    def __init__(self, name: object = "", *args: object):
        self.name, self.order = str(name), "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


class _Array:
    """A NumPy array.

    Attributes:
        value: the array; None if it holds anything but plain numbers.
    """

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, by_columns, raw = state
            if isinstance(raw, bytes) and _PLAIN_DTYPE.fullmatch(dtype.name):
                flat = np.frombuffer(raw, dtype.order + dtype.name)
                self.value = flat.reshape(shape, order="F" if by_columns else "C")
        except (AttributeError, TypeError, ValueError):  # forged: no array then
            self.value = None


def _new_array(*args: object) -> _Array:
    return _Array()


def _stand_ins() -> list[Any]:
    """(what is called in place of a class or function, its name in the pickle)."""
    arrays = [
        (_Array, "numpy.ndarray"),
        (_Dtype, "numpy.dtype"),
        *(
            (stand_in, f"numpy.{core}.multiarray.{name}")
            for core in ("core", "_core")
            for stand_in, name in ((_new_array, "_reconstruct"), (_Unread, "scalar"))
        ),
    ]
    dicts = (
        "collections.defaultdict",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "easydict.EasyDict",
        "addict.addict.Dict",
        "yacs.config.CfgNode",
    )
    unread = (
        "argparse.Namespace",
        "types.SimpleNamespace",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.WindowsPath",
        "pathlib.PureWindowsPath",
        "pathlib._local.PosixPath",
        "pathlib._local.PurePosixPath",
        "pathlib._local.WindowsPath",
        "datetime.datetime",
        "datetime.date",
        "datetime.timedelta",
        "decimal.Decimal",
        "uuid.UUID",
        "typing.Any",
        *(
            f"omegaconf.{name}"
            for name in (
                "dictconfig.DictConfig",
                "listconfig.ListConfig",
                "base.ContainerMetadata",
                "base.Metadata",
                "nodes.AnyNode",
            )
        ),
        # Keys of older Lightning's callbacks.
        "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
        "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
        # What a defaultdict makes, which is not made here.
        *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool", "tuple")),
    )
    return [*arrays, *((_Dict, name) for name in dicts), *((_Unread, name) for name in unread)]


def load(source: Path | bytes, path: Path) -> Any:
    """What a PyTorch file holds.

    Args:
        source: the file, or its bytes.
        path: for messages.

    Raises:
        UserError: it is damaged, holds an object of a class without a stand-in, or PyTorch is
            needed and not installed.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: reading it needs PyTorch (pip install torch); model.safetensors does not"
        ) from None
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            with torch.serialization.safe_globals(_stand_ins()):
                return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_refusal(str(error))}") from None
    except Exception as error:  # damaged pickles end in errors of every kind
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        if "TorchScript" in first_line:
            raise UserError(
                f"{path}: a TorchScript program; save its state_dict() with torch.save"
            ) from None
        raise UserError(f"{path}: truncated or not a PyTorch file ({first_line[:200]})") from None


def _refusal(error: str) -> str:
    """Why the unpickler took no more, with the class that it met."""
    named = re.search(
        r"GLOBAL (\S+)|got <class '([^']+)'>|unrecognized function <\w+ '?([\w.]+)", error
    )
    if named is None:
        return "refused, it is damaged or holds more than tensors (loading it could run code)"
    name = next(group for group in named.groups() if group)[:120]
    return (
        f"refused, it holds an object of {name} (loading it could run code); "
        "save the model's state_dict() alone"
    )


def _is_tensor(value: Any) -> bool:
    if isinstance(value, _Array):
        return value.value is not None
    # By the name, since PyTorch is imported where a file needs it.
    return type(value).__module__.startswith("torch") and hasattr(value, "is_floating_point")


def state_dict_in(state: Any, path: Path, key: str | None) -> tuple[Mapping[Any, Any], list[str]]:
    """The dict of tensors in what a file holds, and what should be said about it.

    Args:
        state: what `load` returns.
        path: for messages.
        key: where it lies, `outer.inner`; None takes the first of `KNOWN_KEYS`.

    Raises:
        UserError: there is none, none there, or none under a known key.
    """
    if not isinstance(state, Mapping):
        raise UserError(f"{path}: holds a {type(state).__name__}, not named tensors")
    places = dict(_places(state, (), iter(range(_MOST_PLACES))))
    if key is not None:
        if key not in places:
            raise UserError(f"--key {key[:80]}: {path} has {_said(places)}")
        return places[key], []
    known = [
        place
        for name in KNOWN_KEYS
        for place in sorted(places, key=lambda place: place.count("."))
        if place.split(".")[-1] == name
    ]
    if known:
        others = [place for place in places if place not in ("", known[0])]
        note = f"taken: the tensors of {known[0]!r}; --key takes others: {_said(places, known[0])}"
        return places[known[0]], [note] if others else []
    if "" in places:
        return places[""], []
    if places:
        raise UserError(f"{path}: no known key holds its tensors; --key takes {_said(places)}")
    raise UserError(f"{path}: holds no tensors")


def _places(value: Mapping[Any, Any], keys: tuple[str, ...], visits: Iterator[int]) -> Any:
    """(dotted keys, dict) of the dicts that hold tensors, from the top down; `visits` at most."""
    if any(map(_is_tensor, value.values())):
        yield ".".join(keys), value
    for name, inner in value.items():
        # The moments of an optimiser have the shapes of parameters and are none.
        deeper = isinstance(inner, Mapping) and len(keys) < _DEPTH and "optim" not in str(name)
        # A forged dict may lie in itself, a thousand times.
        if deeper and next(visits, None) is not None:
            yield from _places(inner, (*keys, str(name)), visits)


def _said(places: Mapping[str, Mapping[Any, Any]], but: str = "") -> str:
    counts = [
        f"{place[:60]} ({sum(map(_is_tensor, tensors.values()))} tensors)"
        for place, tensors in places.items()
        if place not in ("", but)
    ]
    return listing(counts, 5) or "no tensors under a key"


def arrays_of(
    state: Mapping[Any, Any],
) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """Name -> shape of a dict's tensors, and what reads one: floating point as float32."""
    tensors = {str(name): value for name, value in state.items() if _is_tensor(value)}
    shapes = {
        name: tuple((v.value if isinstance(v, _Array) else v).shape) for name, v in tensors.items()
    }

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        if isinstance(tensor, _Array):
            assert tensor.value is not None
            return tensor.value
        tensor = tensor.detach()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    return shapes, read
