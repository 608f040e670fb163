"""`maven-jax tune`: choose a calibration by validation predictions."""

from __future__ import annotations

import math

from maven_jax import own_files
from maven_jax.challenge.calibrate import Tried, calibrate
from maven_jax.challenge.tune import DELAYS_S, STEPS, WIDTHS
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.runtime.compilation import keep_compiled

_MAX_DELAY_S = 60


def _widths(text: str) -> list[int]:
    words = [w.strip() for w in text.split(",")]
    if not all(w.isascii() and w.isdigit() and len(w) < 7 for w in words):
        raise UserError(f"--widths {text}: expected numbers of frames, such as 0,10,20,50")
    return [int(w) for w in words]


def _delays(text: str) -> list[float]:
    try:
        values = [float(w) for w in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 <= v <= _MAX_DELAY_S for v in values):
        raise UserError(
            f"--delays {text}: expected seconds from 0 to {_MAX_DELAY_S}, such as 0,0.5,1"
        )
    return values


def main(argv: list[str]) -> int:
    """`maven-jax tune`."""
    p = Parser(
        prog="maven-jax tune",
        description="Choose, for valence and arousal apart, a delay, the width of a box filter and "
        "a map of mean and spread by a run's validation predictions; keep what gains on recordings "
        "that did not choose it, and estimate what that gives elsewhere.",
    )
    p.add_argument("--workdir", required=True, type=local_path, help="folder of a training run")
    p.add_argument("--split", help="split to tune on (default: the run's evaluation split)")
    own_files.add_argument(p)
    p.add_argument("--store", help="another store with the same kind of features")
    p.add_argument(
        "--checkpoint", default="best", help="best (by validation ccc), latest, or a step"
    )
    p.add_argument(
        "--delays",
        default=",".join(f"{d:g}" for d in DELAYS_S),
        help="seconds to try: predictions come so much later (default: %(default)s)",
    )
    p.add_argument(
        "--widths",
        default=",".join(map(str, WIDTHS)),
        help="frames of box filters to try (default: %(default)s)",
    )
    for step, text in (
        ("delay", "no delay"),
        ("smoothing", "no box filter"),
        ("spread", "no map to the training labels' mean and spread"),
    ):
        p.add_argument(f"--no-{step}", action="store_true", help=text)
    p.add_argument(
        "--force",
        action="store_true",
        help="replace a calibration.json that `tune` did not write",
    )
    args = p.parse_args(argv)
    steps = [step for step in STEPS if not getattr(args, f"no_{step}")]
    tried = Tried(steps, _delays(args.delays), _widths(args.widths))
    keep_compiled()
    calibrate(
        args.workdir,
        tried,
        which=args.checkpoint,
        split=args.split,
        store=args.store,
        force=args.force,
    )
    return 0
