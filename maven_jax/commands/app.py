"""Prediction in the browser: `maven-jax app [--checkpoint DIR]`, on this machine only."""

from __future__ import annotations

import importlib.util

from maven_jax import own_files
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.media import face_search
from maven_jax.progress import say

_PORT = 7860


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="maven-jax app",
        description="Open a page in your browser that takes a video, or records one by the camera, "
        "and shows what `maven-jax predict --html` writes for it.",
        epilog="The page is reached from this machine only, and sends nothing anywhere. What it "
        "was given goes when the command ends. Without --checkpoint, published networks predict. "
        "--encoders.MODALITY.source=FOLDER as in `predict`. Needs the extra `app`.",
        allow_abbrev=False,
    )
    p.add_argument(
        "--checkpoint",
        type=local_path,
        metavar="DIR",
        help="workdir or exported bundle (default: published networks, see --affect)",
    )
    p.add_argument("--affect", metavar="RECIPE", help="which published networks; see `predict`")
    p.add_argument(
        "--step", default="best", help="of a workdir: best (default), latest or a step's number"
    )
    p.add_argument(
        "--port",
        type=int,
        default=_PORT,
        metavar="N",
        help=f"where the page is reached (default {_PORT}; 0 takes any that is free)",
    )
    face_search.add_options(p)
    own_files.add_argument(p)
    p.add_argument("--workers", type=int, metavar="N", help="threads (default: one per core)")
    return p


def main(argv: list[str] | None = None) -> int:
    """`maven-jax app`."""
    args, values = parser().parse_known_args(argv)
    search = face_search.search_of(args)
    if args.checkpoint is not None and args.affect is not None:
        raise UserError("--affect is for predictions without --checkpoint")
    if args.workers is not None and args.workers < 1:
        raise UserError("--workers: expected at least 1")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port {args.port}: expected a number from 0 to 65535")
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page in the browser needs Gradio: pip install 'maven_jax[app]'")
    # Imported here to start faster: mistakes above need none of it.
    from maven_jax.video import app, predictor
    from maven_jax.video.affect import DEFAULT, load_affect

    with app.listening(args.port) as socket:
        if args.checkpoint is None:
            name = args.affect or DEFAULT
            model = load_affect(name, overrides=values, workers=args.workers)
        else:
            model = predictor.load(
                args.checkpoint, which=args.step, encoders=values, workers=args.workers
            )
        say(f"open {app.address(socket)} in a browser; Ctrl-C ends it")
        app.serve(model, search, socket)
    return 0
