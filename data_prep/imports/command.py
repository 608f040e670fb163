"""The options of `maven-jax prepare --features DIR`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.imports.raters import LabelOptions, parse_scale
from data_prep.imports.tables import checked_unit
from maven_jax.command_line import local_path, positive
from maven_jax.errors import UserError
from maven_jax.store.reader import Store
from maven_jax.store.writer import filling

# Options that go with `--features` alone, and with `--labels`.
_OF_FEATURES = ("rate", "fps", "columns", "face", "time_unit")
_OF_LABELS = ("scale", "raters", "delay", "splits")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The options that say how features and ratings are read."""
    p.add_argument(
        "--rate",
        action="append",
        default=[],
        metavar="NAME=HZ",
        help="with --features: rate of a modality's .npy files (repeatable)",
    )
    p.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="NAME=REGEX",
        help="with --features: columns of a modality's .csv files that are features (repeatable), "
        "e.g. 'face=AU.*_r'; default: all that are known to be none left out",
    )
    p.add_argument(
        "--face",
        action="append",
        default=[],
        metavar="NAME=FACE",
        help="with --features: whose rows count where a time has several; best for those of the "
        "highest confidence, or a value of the column of faces (repeatable)",
    )
    p.add_argument(
        "--time-unit",
        action="append",
        default=[],
        metavar="[NAME=]UNIT",
        help="with --features: unit (s, ms, us, min) of a modality's times, or of those of "
        "--labels, where the name of their column does not say it (repeatable)",
    )
    add_label_arguments(p, "with --features: ", " instead of --root")
    p.add_argument("--fps", type=positive, help="with --features: frame rate of the annotations")


def add_label_arguments(p: argparse.ArgumentParser, condition: str, instead: str) -> None:
    """The options that say how ratings are read.

    Args:
        p: the command line.
        condition: what help says of when `--labels` counts.
        instead: and of what it takes the place of.
    """
    p.add_argument(
        "--labels",
        type=local_path,
        metavar="PATH",
        help=f"{condition}ratings of MuSe, AVEC/SEWA, RECOLA, OMG or a table with a row per clip,"
        f"{instead}",
    )
    p.add_argument(
        "--scale",
        action="append",
        default=[],
        metavar="[DIM=]LOW,HIGH",
        help="with --labels: lowest and highest rating, e.g. 1,5 or arousal=0,1 (default -1,1)",
    )
    p.add_argument(
        "--raters",
        choices=("mean", "ewe"),
        default="",
        help="with --labels: how several raters become one (default: mean)",
    )
    p.add_argument(
        "--delay",
        type=positive,
        metavar="S",
        help="with --labels: seconds by which ratings are late; they are moved forward",
    )
    p.add_argument(
        "--splits",
        metavar="FILE|SPLIT",
        help="with --labels: a table with the columns video,split, or the split that all are in",
    )


def labels_of(args: argparse.Namespace) -> tuple[Path, LabelOptions] | None:
    """What the options say of ratings; None without `--labels`.

    Raises:
        UserError: options that go with `--labels`, without it; or impossible values.
    """
    for name in _OF_LABELS:
        if getattr(args, name) and args.labels is None:
            raise UserError(f"--{name} goes with --labels")
    units = [word for word in args.time_unit if "=" not in word]
    if units and args.labels is None:
        raise UserError(f"--time-unit {units[0]}: goes with --labels; else NAME=UNIT")
    if args.labels is None:
        return None
    return args.labels, LabelOptions(
        parse_scale(args.scale),
        checked_unit(units[-1]) if units else None,
        args.raters or "mean",
        args.delay or 0.0,
        args.splits,
    )


def check_absent(args: argparse.Namespace) -> None:
    """Raises UserError for options that need `--features`."""
    for name in (*_OF_FEATURES, *_OF_LABELS, "labels"):
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} goes with --features")


def _rates(words: Sequence[str]) -> Mapping[str, float]:
    """`["eeg=10", …]` as modality → Hz."""
    rates = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            rates[name] = positive(text)
        except argparse.ArgumentTypeError:
            raise UserError(f"--rate {word}: expected NAME=HZ, e.g. eeg=10") from None
    return rates


def _by_name(option: str, words: Sequence[str]) -> dict[str, str]:
    """`["eeg=ms", …]` as modality → value."""
    named = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise UserError(f"{option} {word}: expected NAME=VALUE, NAME a folder of --features")
        named[name] = value
    return named


def run(args: argparse.Namespace, rest: Sequence[str]) -> Store:
    """`--features DIR`: features made elsewhere."""
    for name in ("check_only", "assume_fps", "limit_videos", "part", "beam", "beam_options"):
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with --features")
    if rest:
        raise UserError(f"unknown argument {rest[0]!r}")
    if (args.root is None) == (args.labels is None):
        raise UserError("--features needs either --root ROOT or --labels PATH")
    labels = labels_of(args)
    # Starts faster without.
    from data_prep.imports import features as import_features
    from data_prep.imports.files import readings_of

    with filling(args.out):
        return import_features.run(
            args.features,
            args.root,
            args.out,
            rates=dict(_rates(args.rate)),
            readings=readings_of(
                _by_name("--columns", args.columns),
                _by_name("--face", args.face),
                _by_name("--time-unit", [w for w in args.time_unit if "=" in w]),
            ),
            labels=labels,
            fps=args.fps,
            allow_missing=args.allow_missing,
        )
