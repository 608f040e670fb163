"""`maven-jax evaluate`: score a trained model on a split."""

from __future__ import annotations

import json

from maven_jax import own_files
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError, did_you_mean
from maven_jax.progress import silence
from maven_jax.runs.evaluate import evaluate
from maven_jax.runs.workdir import read_record
from maven_jax.runtime import hosts
from maven_jax.runtime.compilation import keep_compiled


def main(argv: list[str]) -> int:
    """`maven-jax evaluate`."""
    p = Parser(
        prog="maven-jax evaluate",
        description="Score a trained model: CCC over all frames of a split, predictions, plots.",
    )
    p.add_argument("--workdir", required=True, type=local_path, help="folder of a training run")
    p.add_argument("--split", help="split of the store (default: the run's evaluation split)")
    p.add_argument(
        "--checkpoint", default="best", help="best (by validation ccc), latest, or a step"
    )
    p.add_argument("--store", help="another store with the same kind of features")
    p.add_argument(
        "--labels",
        type=local_path,
        metavar="DIR",
        help="score against the annotations VIDEO.txt in this folder, not the store's",
    )
    p.add_argument(
        "--force", action="store_true", help="replace results that `evaluate` did not write"
    )
    p.add_argument("--json", action="store_true", help="print the scores as JSON, and nothing else")
    own_files.add_argument(p)
    hosts.add_arguments(p)
    args = p.parse_args(argv)
    keep_compiled()
    if args.checkpoint not in ("best", "latest") and not args.checkpoint.isdigit():
        raise UserError(
            f"--checkpoint {args.checkpoint}: expected best, latest or a step"
            + did_you_mean(args.checkpoint, ("best", "latest"))
        )
    with hosts.connect(args, preemptible=False) as watchdog:
        if args.json:
            silence()
        config, _ = read_record(args.workdir)
        split = args.split or config.data.eval_split
        scores = evaluate(
            args.workdir,
            split,
            which=args.checkpoint,
            store=args.store,
            labels=args.labels,
            watchdog=watchdog,
            force=args.force,
        )
        if args.json and hosts.is_writer():
            print(json.dumps(scores, indent=2, ensure_ascii=False))
    return 0
