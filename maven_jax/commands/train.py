"""`maven-jax train`: train by a recipe, then evaluate the best checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

from maven_jax import own_files, recipes
from maven_jax.command_line import Parser, count, local_path
from maven_jax.files import write_json
from maven_jax.progress import format_duration, say
from maven_jax.recipes import check_sections
from maven_jax.runs import trackers
from maven_jax.runs.metrics import read_metrics
from maven_jax.runs.workdir import FINISHED_FILE, check_free
from maven_jax.runtime import hosts
from maven_jax.runtime.compilation import keep_compiled
from maven_jax.store.reader import Store
from maven_jax.training.initial_weights import init_from
from maven_jax.training.train import train


def parser() -> Parser:
    p = Parser(
        prog="maven-jax train",
        description="Train by a recipe, then evaluate the best checkpoint. The same command again "
        "continues where it stopped.",
        epilog="Every value of the recipe can be set: --config.train.batch_size=8. "
        f"Recipes: {', '.join(recipes.names())}.",
    )
    p.add_argument("--config", required=True, help="recipe: a file or a name, with :variant if any")
    p.add_argument("--workdir", required=True, type=local_path, help="folder of the run")
    p.add_argument(
        "--init-from",
        metavar="DIR",
        help="begin with the weights of the best checkpoint in this workdir, and with nothing "
        "else of it; short for --config.train.init of the whole model",
    )
    p.add_argument(
        "--profile",
        type=count,
        default=0,
        metavar="STEPS",
        help="record so many steps after the first ones into WORKDIR/profile, and print the "
        "kernels that take longest; results stay the same",
    )
    own_files.add_argument(p)
    hosts.add_arguments(p)
    return p


def main(argv: list[str]) -> int:
    """`maven-jax train`."""
    args, rest = parser().parse_known_args(argv)
    keep_compiled()
    with hosts.connect(args, preemptible=True) as watchdog, hosts.Preemption() as preemption:
        config = recipes.load(args.config)
        overrides = recipes.override(config, rest)
        if args.init_from is not None:
            init_from(config, args.init_from)
        check_sections(config)
        began = time.monotonic()
        if hosts.is_writer():
            check_free(args.workdir, config)
            trackers.check(config)
            if config.data.synthetic is not None:
                # Only runs on the synthetic corpus need what draws it.
                from data_prep.synth.store import ensure_store

                section = config.data.synthetic
                recipes.call(ensure_store, section, "data.synthetic", store=config.data.store)
        hosts.wait_for_first()  # the others wait for the store
        scores = train(
            config,
            args.workdir,
            overrides,
            watchdog=watchdog,
            preemption=preemption,
            profile_steps=args.profile,
        )
        if scores is None:
            return 0
        # Matplotlib takes a second to import: it should not delay the first step.
        from maven_jax.evaluation import plots
        from maven_jax.runs.evaluate import evaluate

        scores = evaluate(args.workdir, config.data.eval_split, which="best", watchdog=watchdog)
        for split, folder in config.eval.labels.items():
            if split not in Store(config.data.store).splits:
                say(f"config.eval.labels.{split}: the store has no such split, so it is not scored")
                continue
            if folder is None or not Path(folder).is_dir():
                say(f"config.eval.labels.{split}: {folder} is not there, so it is not scored")
                continue
            evaluate(args.workdir, split, which="best", watchdog=watchdog)
        if hosts.is_writer():
            rows, plot = read_metrics(args.workdir), args.workdir / "plots" / "training.png"
            if any(row["kind"] == "train" for row in rows):  # a closed form has no curve
                plots.plot_training(rows, config.data.eval_split, plot)
            last = max(row["step"] for row in rows)
            row = {"steps": last, "best_step": scores["step"], "ccc": scores["ccc"]}
            write_json(args.workdir / FINISHED_FILE, row)
        took = format_duration(time.monotonic() - began)
        say(f"done in {took}; everything is in {args.workdir}")
    return 0
