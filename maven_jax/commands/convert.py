"""`maven-jax convert`: released PyTorch weights into folders that the other commands open."""

from __future__ import annotations

import argparse

from maven_jax.command_line import Parser, local_path
from maven_jax.runs.convert_file import convert, models


def parser() -> Parser:
    """The command's arguments."""
    p = Parser(
        prog="maven-jax convert",
        description="Convert released PyTorch weights. Of a fusion network this makes a workdir "
        "that `maven-jax evaluate` opens; of encoders, folders that recipes of `maven-jax prepare` "
        "name as `source`.",
        epilog="models:\n"
        + "\n".join(f"  {name:<11} {about}" for name, about in models().items())
        + "\n\nFiles are read as data only: a pickle that holds more than tensors is refused."
        "\nA network of other sizes: --config.model.KEY=VALUE, as for `maven-jax train`.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--model", required=True, help="which of the models below the file holds")
    p.add_argument(
        "--input",
        required=True,
        type=local_path,
        help="PyTorch file (.pt, .pth, .bin, .ckpt), safetensors or .npz",
    )
    p.add_argument(
        "--key",
        help="where in a PyTorch file the tensors lie, OUTER.INNER; the usual places are known",
    )
    p.add_argument("--out", required=True, type=local_path, help="folder to write; empty or absent")
    p.add_argument(
        "--dimension",
        choices=("valence", "arousal"),
        help="what a network with one output predicts (rjcma; the file does not say)",
    )
    return p


def main(argv: list[str]) -> int:
    """`maven-jax convert`."""
    args, rest = parser().parse_known_args(argv)
    convert(
        args.model,
        args.input,
        args.out,
        key=args.key,
        dimension=args.dimension,
        overrides=rest,
    )
    return 0
