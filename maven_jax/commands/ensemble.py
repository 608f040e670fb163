"""`maven-jax ensemble`: make one of the predictions of several runs."""

from __future__ import annotations

from maven_jax.challenge.ensemble import EQUAL, METHODS, ensemble
from maven_jax.command_line import Parser, local_path


def main(argv: list[str]) -> int:
    """`maven-jax ensemble`."""
    p = Parser(
        prog="maven-jax ensemble",
        description="Make one of the predictions of several evaluated runs: seeds, folds (on a "
        "split that none of them trains on), or a run for valence and one for arousal.",
    )
    p.add_argument("workdirs", nargs="+", type=local_path, metavar="WORKDIR", help="evaluated runs")
    p.add_argument(
        "--out", required=True, type=local_path, help="folder for scores and predictions"
    )
    p.add_argument("--split", default="validation", help="which evaluation (default: validation)")
    p.add_argument(
        "--method",
        choices=sorted(METHODS),
        default="mean",
        help="mean of the tracks, or of tracks moved to an agreement-weighted common mean",
    )
    p.add_argument(
        "--weights",
        default=EQUAL,
        metavar="validation|equal|W,W,…",
        help="of the runs in the mean: those that suit their predictions of validation best, for "
        "valence and arousal apart; equal ones (the default); or a number for each run",
    )
    p.add_argument(
        "--calibrated",
        action="store_true",
        help="join the tracks as `tune` calibrates them, each run in its own way",
    )
    p.add_argument(
        "--force", action="store_true", help="replace results that `ensemble` did not write"
    )
    args = p.parse_args(argv)
    ensemble(
        args.workdirs,
        args.out,
        args.split,
        args.method,
        force=args.force,
        weights=args.weights,
        calibrated=args.calibrated,
    )
    return 0
