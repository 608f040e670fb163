"""`maven-jax cross-validate`: one honest score over all videos of a store."""

from __future__ import annotations

import argparse
import time

from maven_jax import own_files, recipes
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.progress import format_duration, say
from maven_jax.recipes import Config
from maven_jax.runtime import hosts
from maven_jax.runtime.compilation import keep_compiled
from maven_jax.training.cross_validation import cross_validate, fold_config

ABAW = "abaw"


def parser() -> Parser:
    p = Parser(
        prog="maven-jax cross-validate",
        description="Train by a recipe on one fold after the other, predict the videos that each "
        "holds out by its last step, and score all these predictions as one. The annotated videos "
        "of the splits train and validation are cut; test is left alone. The same command again "
        "continues where it stopped.",
        epilog="Every value of the recipe can be set: --config.train.num_epochs=8. "
        "`maven-jax compare W --split out_of_fold` shows the score again.",
    )
    p.add_argument("--config", required=True, help="recipe: a file or a name, with :variant if any")
    p.add_argument(
        "--folds",
        metavar="K",
        help=f"how many parts of whole recordings, about equal in annotated frames; {ABAW}: its "
        "six folds of Aff-Wild2 (default: one for each group)",
    )
    p.add_argument(
        "--groups",
        metavar="FILE.csv",
        type=local_path,
        help="columns video,group (a person, a language): no group is on both sides of a fold",
    )
    p.add_argument("--workdir", required=True, type=local_path, help="folder of runs and report")
    p.add_argument(
        "--force", action="store_true", help="replace a report that `cross-validate` did not write"
    )
    own_files.add_argument(p)
    hosts.add_arguments(p)
    return p


def set_folds(config: Config, args: argparse.Namespace) -> None:
    """Puts `--folds` and `--groups` into a recipe.

    Raises:
        UserError: neither they nor the recipe say how to cut, or they contradict each other.
    """
    data = config.data
    with data.ignore_type():
        if args.groups is not None:
            data.fold_groups = str(args.groups)
        if args.folds == ABAW:
            if data.fold_groups is not None:
                raise UserError(f"--folds {ABAW} takes no groups: its folds are what they are")
            data.folds = None
        elif args.folds is not None:
            if not (args.folds.isascii() and args.folds.isdigit() and len(args.folds) < 7):
                raise UserError(f"--folds {args.folds}: expected a number of folds or {ABAW}")
            data.folds = int(args.folds)
        elif data.folds is None and data.fold_groups is None:
            raise UserError(
                f"--folds is missing: a number, {ABAW}, or --groups alone for a fold for each group"
            )


def main(argv: list[str]) -> int:
    """`maven-jax cross-validate`."""
    args, rest = parser().parse_known_args(argv)
    keep_compiled()
    with hosts.connect(args, preemptible=True) as watchdog, hosts.Preemption() as preemption:
        config = recipes.load(args.config)
        overrides = recipes.override(config, rest)
        # A recipe may say how to cut without a fold, which no other command takes.
        recipes.check_sections(fold_config(config, 0) if "data" in config else config)
        set_folds(config, args)
        began = time.monotonic()
        scores = cross_validate(
            config,
            args.workdir,
            overrides,
            watchdog=watchdog,
            preemption=preemption,
            force=args.force,
        )
        if scores is not None:
            took = format_duration(time.monotonic() - began)
            say(f"done in {took}; everything is in {args.workdir}")
    return 0
