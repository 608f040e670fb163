"""`maven-jax tune-smoothing`: choose box filters by validation predictions."""

from __future__ import annotations

from maven_jax import own_files
from maven_jax.challenge.tune_smoothing import WIDTHS, tune_smoothing
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.runtime.compilation import keep_compiled


def _widths(text: str) -> list[int]:
    words = [w.strip() for w in text.split(",")]
    if not all(w.isascii() and w.isdigit() and len(w) < 7 for w in words):
        raise UserError(f"--widths {text}: expected numbers of frames, such as 0,10,20,50")
    return [int(w) for w in words]


def main(argv: list[str]) -> int:
    """`maven-jax tune-smoothing`."""
    p = Parser(
        prog="maven-jax tune-smoothing",
        description="Choose the widths of the box filters for valence and arousal by a run's "
        "validation predictions, and estimate what they gain on other recordings.",
    )
    p.add_argument("--workdir", required=True, type=local_path, help="folder of a training run")
    p.add_argument("--split", help="split to tune on (default: the run's evaluation split)")
    own_files.add_argument(p)
    p.add_argument("--store", help="another store with the same kind of features")
    p.add_argument(
        "--checkpoint", default="best", help="best (by validation ccc), latest, or a step"
    )
    p.add_argument(
        "--widths",
        default=",".join(map(str, WIDTHS)),
        help="frames to try (default: %(default)s)",
    )
    p.add_argument(
        "--force",
        action="store_true",
        help="replace a smoothing.json that `tune-smoothing` did not write",
    )
    args = p.parse_args(argv)
    keep_compiled()
    tune_smoothing(
        args.workdir,
        which=args.checkpoint,
        split=args.split,
        store=args.store,
        widths=_widths(args.widths),
        force=args.force,
    )
    return 0
