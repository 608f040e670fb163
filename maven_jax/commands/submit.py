"""`maven-jax submit`: write or check the challenge's file."""

from __future__ import annotations

from pathlib import Path

from maven_jax import own_files
from maven_jax.challenge.ensemble import EQUAL, METHODS
from maven_jax.challenge.submit import Labels, check, read_labels, submit
from maven_jax.challenge.template import read_template
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.runtime.compilation import keep_compiled


def parser() -> Parser:
    p = Parser(
        prog="maven-jax submit",
        description="Write the challenge's file: a row for each image of the organisers' template, "
        "in its order. Several runs are joined. --check FILE looks at any such file instead.",
    )
    p.add_argument(
        "--workdir",
        nargs="+",
        action="extend",
        type=local_path,
        default=[],
        metavar="W",
        help="run (or bundle) whose predictions are written; several are an ensemble",
    )
    p.add_argument(
        "--template", type=local_path, required=True, help="the organisers' list of rows"
    )
    p.add_argument("--out", type=local_path, help="file to write")
    p.add_argument(
        "--check",
        nargs="?",
        const=True,
        metavar="FILE",
        help="check FILE against the template; without FILE the one that was written",
    )
    p.add_argument(
        "--annotations", type=local_path, metavar="DIR", help="score against DIR/**/<video>.txt"
    )
    own_files.add_argument(p)
    p.add_argument("--store", help="features, if not in the store that the run was trained on")
    p.add_argument(
        "--checkpoint", default="best", help="best (by validation ccc), latest, or a step"
    )
    p.add_argument(
        "--calibrated",
        "--smooth",
        default="tuned",
        metavar="HOW",
        help="what is done to the tracks: tuned (by `tune`, else the recipe's box filters; the "
        "default), none, or box filters of frames for valence and arousal such as 20,50",
    )
    p.add_argument(
        "--method", choices=sorted(METHODS), default="mean", help="how several runs are joined"
    )
    p.add_argument(
        "--weights",
        default=EQUAL,
        metavar="validation|equal|W,W,…",
        help="of the runs in the mean, as in `ensemble`: those that suit their evaluations of "
        "validation best, for valence and arousal apart; equal ones (the default); or numbers",
    )
    p.add_argument(
        "--allow-missing",
        type=int,
        default=0,
        metavar="N",
        help="so many videos may lack predictions; they get the training mean (default 0)",
    )
    p.add_argument(
        "--force", action="store_true", help="replace FILE of --out if `submit` did not write it"
    )
    return p


def main(argv: list[str]) -> int:
    """`maven-jax submit`."""
    args = parser().parse_args(argv)
    if isinstance(args.check, str) and (args.workdir or args.out):
        raise UserError("--check FILE goes without --workdir and --out; bare --check with them")
    if not isinstance(args.check, str) and not (args.workdir and args.out):
        raise UserError("give --workdir W and --out FILE, or --check FILE")
    if len({w.resolve() for w in args.workdir}) < len(args.workdir):
        raise UserError("--workdir: the same run twice")
    if args.annotations is not None and args.check is None:
        raise UserError("--annotations goes with --check: it says what to score against")
    keep_compiled()
    template = read_template(args.template)
    labels: Labels = {}
    if args.workdir:
        labels = submit(
            args.workdir,
            template,
            args.out,
            force=args.force,
            store=args.store,
            which=args.checkpoint,
            calibrated=args.calibrated,
            method=args.method,
            weights=args.weights,
            allow_missing=args.allow_missing,
        )
    if args.annotations is not None:
        labels = read_labels(args.annotations, template)
    if args.check is None:
        return 0
    file = args.out if args.check is True else Path(args.check)
    return 2 if check(file, template, labels) else 0
