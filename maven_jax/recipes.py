"""Recipes: finding a config file, reading it, overriding its values, checking its keys.

A recipe is a Python file with `get_config(arg="") -> ConfigDict`. It is named by its path or, for
those that come with the package, by its name: `configs/maven.py`, `maven`, `maven_released:mlp`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from maven_jax import own_files, recipe_values
from maven_jax.errors import UserError, did_you_mean

# A ConfigDict; static checkers know nothing of the types of its values.
Config = Any
_PACKAGE = Path(__file__).resolve().parent
_COMMON = "common.py"


def folder() -> Path:
    """The folder of recipes: beside the package in a clone, inside it when installed as a wheel."""
    beside = _PACKAGE.parent / "configs"
    return beside if (beside / "encoders").is_dir() else _PACKAGE / "configs"


def names(group: str = "") -> list[str]:
    """The recipes that come with the package; what they share (`common`) is not one.

    Args:
        group: subfolder of the recipes, e.g. `encoders`.
    """
    return sorted(f.stem for f in (folder() / group).glob("*.py") if f != folder() / _COMMON)


def from_json(config: dict[str, Any]) -> Config:
    """The config that was written as JSON; JSON's lists are the tuples of recipes.

    Raises:
        UserError: a key is none that a recipe can have.
    """

    def tuples(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    try:
        return ConfigDict(tuples(config))
    except (ValueError, TypeError) as error:
        raise UserError(f"not the config of a run: {error}") from error


# Keys that recorded configs may lack, as they came later; the value is what a run then did.
_LATER: dict[str, dict[str, Any]] = {
    "data": {"folds": None, "fold_groups": None, "centre": [0.0]},
    "inputs": {"video_offset_std": 0.0, "channel_dropout": 0.0, "speed": 0.0},
    "loss": {"extra_targets": [], "extra_weights": [1.0]},  # as JSON has them
    "train": {"ema_decay": 0.0, "batch_frames": None, "wandb": None, "mlflow": None},
    "eval": {"labels": {}, "blend": "mean"},
}
# The same, of models by their names.
_LATER_OF_MODELS: dict[str, dict[str, Any]] = {"grjca": {"unit_length": False}}


def from_record(config: dict[str, Any]) -> Config:
    """`from_json` of what a run recorded, with the keys that came to be since.

    Raises:
        UserError: a key is none that a recipe can have.
    """
    return from_json(with_later_keys(config))


def with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """What a run recorded, with the keys that came to be since, at what it then did."""
    filled = dict(config)
    for name, keys in _LATER.items():
        if isinstance(filled.get(name), dict):
            filled[name] = keys | filled[name]
    model = filled.get("model")
    if isinstance(model, dict) and isinstance(model.get("name"), str):
        filled["model"] = _LATER_OF_MODELS.get(model["name"], {}) | model
    return filled


def find(name: str, group: str = "") -> tuple[Path, str]:
    """The file of a recipe and the argument behind its colon.

    Args:
        name: `path/to/file.py`, `configs/file.py` or `file`, each with `:arg` behind it, if any.
        group: subfolder of the recipes to look in, e.g. `encoders`.

    Raises:
        UserError: no such recipe; the message suggests one.
    """
    text, _, arg = name.partition(":")
    home = folder() / group
    parts = Path(text).parts
    if parts and parts[0] == "configs":
        parts = parts[2:] if group and parts[1:2] == (group,) else parts[1:]
    candidates = [Path(text)]
    if parts and not Path(text).is_absolute():
        candidates.append((home / Path(*parts)).with_suffix(".py"))
    for file in candidates:
        if file.is_file() and file.suffix == ".py" and file.resolve() != folder() / _COMMON:
            return file, arg
    raise UserError(f"no recipe {text!r}{did_you_mean(text, names(group))}")


def load(name: str, group: str = "") -> Config:
    """Reads the recipe `name` (see `find`); a model in a file that it names may be run.

    Raises:
        UserError: no such recipe, its code fails, or its `get_config` refuses the argument.
    """
    config = _read(*find(name, group))
    own_files.allow_named(plain(config))
    return config


def common() -> Config:
    """The values that most training recipes share: where a recipe's `get_config` begins.

    They are read from the package's recipes, so a recipe may lie in any folder.
    """
    return _read(folder() / _COMMON, "")


def _read(file: Path, arg: str) -> Config:
    """What the `get_config` of a file returns."""
    module = own_files.run(file, "recipe")
    if not hasattr(module, "get_config"):
        raise UserError(f"{file}: has no get_config(): not a recipe")
    with own_files.errors_of(file):
        config = module.get_config(arg)
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() returned {type(config).__name__}, not a ConfigDict")
    return config


def check_arg(arg: str, variants: Sequence[str]) -> str:
    """Returns `arg` if a recipe knows it; for use inside `get_config`.

    Raises:
        UserError: an unknown argument.
    """
    if arg not in variants:
        raise UserError(f"no variant {arg!r}{did_you_mean(arg, [v for v in variants if v])}")
    return arg


def _parse(text: str, old: Any, key: str) -> Any:
    """`text` as a value of the type of `old`."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise UserError(f"--{key}={text}: expected true or false")
        return text.lower() in ("true", "1")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = tuple(p.strip() for p in text.split(",")) if "," in text else text
    if isinstance(old, tuple | list):
        return tuple(value) if isinstance(value, tuple | list) else (value,)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if old is not None and value is not None and type(value) is not type(old):
        raise UserError(f"--{key}={text}: expected {type(old).__name__}, as in {old!r}")
    return value


def override(config: Config, arguments: Sequence[str], prefix: str = "config") -> list[str]:
    """Sets values by `--config.section.key=value`, in place.

    A value has the type of the one it replaces; tuples are written `a,b`.

    Args:
        config: the recipe.
        arguments: `--config.a.b=value` or `--config.a.b value` words of the command line.
        prefix: the word before the first point.

    Returns:
        The overrides as `a.b=value`, for the record.

    Raises:
        UserError: an argument of another form, an unknown key, a value of the wrong type.
    """
    words, done = list(arguments), []
    while words:
        word = words.pop(0)
        if not word.startswith(f"--{prefix}."):
            raise UserError(f"unknown argument {word!r}; recipe values are set by --{prefix}.key=")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not words:
                raise UserError(f"--{key} has no value")
            text = words.pop(0)
        *path, last = key.split(".")[1:]
        node: Any = config
        for depth, part in enumerate([*path, last]):
            if not isinstance(node, ConfigDict) or part not in node:
                keys = list(node) if isinstance(node, ConfigDict) else []
                at = ".".join(key.split(".")[: depth + 1])
                raise UserError(f"--{key}: {at} has no {part!r}{did_you_mean(part, keys)}")
            if depth < len(path):
                node = node[part]
        old: Any = node[last]
        if isinstance(old, ConfigDict) and text != "None":
            raise UserError(f"--{key} is a section; set one of {', '.join(list(old))}")
        with node.ignore_type():
            node[last] = None if text == "None" else _parse(text, old, key)
        own_files.allow_named(node[last])
        done.append(f"{'.'.join([*path, last])}={text}")
    return done


def plain(section: Config) -> dict[str, Any]:
    """A section and those within it as dicts."""
    return {k: plain(v) if isinstance(v, Mapping | ConfigDict) else v for k, v in section.items()}


def key_groups(model: type) -> dict[str, type]:
    """Attributes of a Linen module that are dataclasses -> their class.

    In a recipe the fields of such a dataclass are keys beside the module's own attributes.
    """
    try:
        hints = typing.get_type_hints(model)
    except NameError:  # annotations that only a type checker can read
        return {}
    attributes = {f.name: hints[f.name] for f in dataclasses.fields(model)}
    return {
        name: kind
        for name, kind in attributes.items()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and not issubclass(kind, nn.Module)
    }


def check_attributes(model: type, section: Mapping[str, Any], where: str) -> None:
    """Raises UserError if a key has a value that the model's attribute cannot have.

    Args:
        model: a Linen module, or a dataclass.
        section: its keys.
        where: the section's name in the recipe.
    """
    for owner in (model, *key_groups(model).values()):
        try:
            hints = typing.get_type_hints(owner)
        except NameError:  # annotations that only a type checker can read
            continue
        for key in section.keys() & hints.keys():
            recipe_values.check_attribute(f"config.{where}.{key}", section[key], hints[key])


def _fields_as_keys(model: type[nn.Module]) -> list[dataclasses.Field]:
    groups = key_groups(model)
    own = [f for f in dataclasses.fields(model) if f.name not in ("parent", "name", *groups)]
    return own + [f for group in groups.values() for f in dataclasses.fields(group)]


def check_keys(
    function: Callable[..., Any], section: Mapping[str, Any], where: str, given: Sequence[str] = ()
) -> None:
    """Raises UserError if `section` has a key that `function` does not take, or lacks one.

    Args:
        function: a function or class (Linen modules included) whose keywords are the keys.
        section: a section of the recipe.
        where: its name, for the message.
        given: keywords that come from elsewhere.
    """
    if inspect.isclass(function) and issubclass(function, nn.Module):
        fields = _fields_as_keys(function)
        names = [f.name for f in fields]
        optional = {
            f.name
            for f in fields
            if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        }
    else:
        parameters = inspect.signature(function).parameters
        names = list(parameters)
        optional = {n for n, p in parameters.items() if p.default is not inspect.Parameter.empty}
    allowed = [n for n in names if n not in given]
    for key in section:
        if key not in allowed:
            raise UserError(f"config.{where} has a key {key!r}{did_you_mean(key, allowed)}")
    missing = sorted(set(allowed) - optional - set(section))
    if missing:
        raise UserError(f"config.{where} lacks {', '.join(missing)}")


def call(function: Callable[..., Any], section: Config, where: str, **given: Any) -> Any:
    """`function(**section, **given)` once `check_keys` finds nothing wrong."""
    section = plain(section)
    check_keys(function, section, where, tuple(given))
    return function(**section, **given)


SECTIONS = ("data", "inputs", "model", "loss", "optimizer", "train", "eval", "checkpoint", "mesh")


def check_sections(config: Config) -> None:
    """Raises UserError if a section is missing or unknown, or a value impossible."""
    required = (*SECTIONS, "seed")
    for key in config:
        if key not in required:
            raise UserError(f"the recipe has a section {key!r}{did_you_mean(key, required)}")
    missing = [key for key in required if key not in config]
    if missing:
        raise UserError(f"the recipe lacks {', '.join(missing)}")
    recipe_values.check_values(plain(config))
