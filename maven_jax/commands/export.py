"""`maven-jax export`: a trained model as one portable folder."""

from __future__ import annotations

from maven_jax import own_files
from maven_jax.command_line import Parser, local_path
from maven_jax.runs.export import export
from maven_jax.runs.program import check_platforms
from maven_jax.runtime.compilation import keep_compiled


def main(argv: list[str]) -> int:
    """`maven-jax export`."""
    p = Parser(
        prog="maven-jax export",
        description="Write a trained model as one portable folder: weights (safetensors), recipe, "
        "feature spec, statistics, scores, model card, and the predictor as a StableHLO program. "
        "No pickles, no code. `predict` opens it like a workdir.",
    )
    p.add_argument(
        "--checkpoint", required=True, type=local_path, help="workdir of a run, or a bundle"
    )
    p.add_argument("--out", required=True, type=local_path, help="folder to write; empty or absent")
    p.add_argument("--step", default="best", help="best (by validation ccc), latest, or a step")
    p.add_argument(
        "--platforms",
        default="cpu,cuda,tpu",
        help="the program's, of cpu,cuda,rocm,tpu (default: cpu,cuda,tpu); none for no program",
    )
    own_files.add_argument(p)
    p.add_argument("--licence", help="of the weights, for the model card")
    args = p.parse_args(argv)
    keep_compiled()
    words = [w.strip() for w in args.platforms.split(",") if w.strip()]
    platforms = () if words == ["none"] else check_platforms(words)
    export(args.checkpoint, args.out, which=args.step, platforms=platforms, licence=args.licence)
    return 0
