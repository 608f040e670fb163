"""Python files of the user's own: recipes, sweeps, classes of models. No other file is ever run.

A config names a class as `path/to/file.py:Class`. Configs of runs and bundles may come from
anybody, so such a name alone runs nothing: the user has to name the file in the same call, by an
option (`--model-file`) or in a recipe.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from maven_jax.errors import UserError

# A file as the user wrote it, and its bare name -> where it is.
_allowed: dict[str, Path] = {}


@contextlib.contextmanager
def errors_of(file: Path) -> Iterator[None]:
    """Makes one line of whatever goes wrong in a file's code: file, line number, error.

    Raises:
        UserError: in place of the error.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except Exception as error:
        # Python may make the path absolute.
        names = (str(file), str(file.absolute()))
        if isinstance(error, SyntaxError):
            lines = [error.lineno] if error.filename in names else []
        else:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename in names]
        place = f"{file}:{lines[-1]}" if lines else str(file)
        reason = (str(error).strip() or "no more is said").splitlines()[0]
        raise UserError(f"{place}: {type(error).__name__}: {reason}") from error


def place_of(error: BaseException) -> str:
    """`file:line: ` of a model's code that an error comes from, if it is the user's; else ""."""
    ours = {str(path) for path in _allowed.values()}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in ours]
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""


def run(file: Path, role: str) -> ModuleType:
    """The module of a Python file, which is run.

    Args:
        file: to run.
        role: what it is, for the name of the module.

    Raises:
        UserError: it does not run to its end.
    """
    spec = importlib.util.spec_from_file_location(f"maven_jax_{role}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    with errors_of(file):
        spec.loader.exec_module(module)
    return module


def is_class_in_file(name: Any) -> bool:
    """Whether a value of a config is the name of a class in a file: `path/to/file.py:Class`."""
    return isinstance(name, str) and ".py:" in name


def class_names(value: Any) -> list[str]:
    """The names of classes in files that a section of a config holds, however deep."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [name for item in value for name in class_names(item)]
    return [value] if is_class_in_file(value) else []


def file_of(name: str) -> str:
    """The file in `path/to/file.py:Class`, as it is written there."""
    return name.rpartition(":")[0]


def allow(file: Path | str) -> Path:
    """Lets the classes of a file be models in this process; it is for the user to say so.

    A config that names a file of the same name in another folder gets this one.

    Raises:
        UserError: there is no such file.
    """
    path = Path(file).absolute()
    if not path.is_file():
        raise UserError(f"no file {path}; the path of a model is that from where you are")
    _allowed[str(file)] = _allowed[path.name] = path
    return path


def allow_named(section: Any) -> None:
    """Allows the files that a section names; for what the user wrote.

    Raises:
        UserError: one of them is not there.
    """
    for name in class_names(section):
        allow(file_of(name))


def allowed_file(name: str, named_by: str = "model") -> Path:
    """Where the file of the class `path/to/file.py:Class` is.

    Raises:
        UserError: the user did not name the file; `named_by` begins the message.
    """
    file = file_of(name)
    path = _allowed.get(file) or _allowed.get(Path(file).name)
    if path is None:
        raise UserError(
            f"{named_by}: the model is code in a file of its own, {name}, which is only run if you "
            "name it: --model-file FILE (in Python: maven_jax.allow_model_file)"
        )
    return path


def digests(section: Any) -> dict[str, str]:
    """File, as the section names it -> sha256 of what would be run for it."""
    return {
        file_of(name): hashlib.sha256(allowed_file(name).read_bytes()).hexdigest()
        for name in class_names(section)
    }


def _option(text: str) -> Path:
    try:
        return allow(text)
    except UserError as error:  # argparse would hide its message
        raise argparse.ArgumentTypeError(str(error)) from None


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The option `--model-file`; whatever file it is given is allowed."""
    parser.add_argument(
        "--model-file",
        type=_option,
        action="append",
        metavar="FILE.py",
        help="the file with the model's class, if the model is one of your own; it is run",
    )
