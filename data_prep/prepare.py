"""From a raw corpus to a feature store: `maven-jax prepare --root ROOT --out STORE`.

Checks everything first, encodes what is usable, and can be stopped and started at any time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_prep.corpus.check import run_check, usable_videos
from data_prep.imports import command as importing
from maven_jax import recipes
from maven_jax.command_line import Parser, local_path, positive
from maven_jax.errors import UserError
from maven_jax.features import sections
from maven_jax.progress import say
from maven_jax.store.reader import Store
from maven_jax.store.writer import filling


def prepare(
    root: Path,
    out: Path,
    encoders: ConfigDict,
    *,
    modalities: Sequence[str] | None = None,
    allow_missing: int = 0,
    assume_fps: float | None = None,
    workers: int = 2,
    limit_videos: int | None = None,
    part: tuple[int, int] | None = None,
) -> Store | None:
    """Checks a corpus and encodes it into a store; continues what an earlier run began.

    Args:
        root: the corpus, in Aff-Wild2's layout.
        out: the store.
        encoders: a recipe of configs/encoders.
        modalities: those to store, of visual, audio, text; None for all that the recipe has.
        allow_missing: how many videos may be unusable or fail.
        assume_fps: frame rate of videos whose container tells no times.
        workers: processes that check, and threads that decode face crops.
        limit_videos: store only the first so many of every split, None for all.
        part: (i, n) encodes every n-th video from the i-th (from 0) on, for n processes that
            share a store; a run without `part` finishes it.

    Returns:
        The store; None for a part.

    Raises:
        UserError: too many videos are unusable or failed (the others are stored), or anything
            else that the user can mend.
    """
    # Here, so that `--help`, `--check-only` and mistakes do not wait for the encoders' libraries.
    from data_prep.encode import encode_corpus
    from data_prep.preparation import begin

    with filling(out, part):
        usable, opened, writer = begin(
            root,
            out,
            encoders,
            modalities=modalities,
            allow_missing=allow_missing,
            assume_fps=assume_fps,
            workers=workers,
            limit_videos=limit_videos,
        )
        mine = usable if part is None else usable[part[0] :: part[1]]
        failed = encode_corpus(mine, opened, writer)
        if part is not None:
            say(f"part {part[0] + 1} of {part[1]} is done; a run without --part finishes the store")
            if failed:
                raise UserError(f"{len(failed)} videos failed: {', '.join(failed)}")
            return None
        return writer.finish(allow_missing)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number")
    return int(text)


def _one_or_more(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdigit() and n.isdigit() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N, from 1/N to N/N")
    return int(i) - 1, int(n)


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="maven-jax prepare",
        description="Checks a corpus in Aff-Wild2's layout and encodes it into a feature store. "
        "The same command continues an interrupted run at the video where it stopped.",
        epilog="Values of the encoders' recipe are set by --encoders.MODALITY.KEY=VALUE, e.g. "
        "--encoders.visual.batch_size=16; --encoders.MODALITY=NAME takes published weights by "
        "their name, --encoders.MODALITY.kind=KIND brings that kind's keys. Exit code 2: more "
        "videos are unusable than --allow-missing, or files or arguments are wrong.",
        allow_abbrev=False,
    )
    p.add_argument("--root", type=local_path, help="the corpus")
    p.add_argument("--out", type=local_path, help="the store to write or to continue")
    p.add_argument(
        "--encoders",
        default="base",
        metavar="NAME_OR_FILE[:ARG]",
        help="recipe of configs/encoders (default base)",
    )
    p.add_argument("--check-only", action="store_true", help="check the corpus, write nothing")
    p.add_argument(
        "--allow-missing",
        type=_count,
        default=0,
        metavar="N",
        help="how many videos may be unusable (default 0)",
    )
    p.add_argument(
        "--modalities",
        help="those to store, of visual,audio,text (default: all that the recipe has)",
    )
    p.add_argument(
        "--features",
        type=local_path,
        metavar="DIR",
        help="import DIR/<modality>/<video>.{npy,csv} instead of encoding",
    )
    importing.add_arguments(p)
    p.add_argument(
        "--assume-fps", type=positive, metavar="F", help="frame rate of videos without timestamps"
    )
    p.add_argument(
        "--workers",
        type=_one_or_more,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that check, threads that decode (default: one per core)",
    )
    p.add_argument(
        "--limit-videos", type=_one_or_more, metavar="N", help="only the first N of every split"
    )
    p.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="encode only the I-th of N parts, for N processes that share one store",
    )
    p.add_argument(
        "--beam",
        action="store_true",
        help="encode through Apache Beam, shard by shard; its workers may be on other machines, "
        "as long as all of them see the folders ROOT and STORE",
    )
    p.add_argument(
        "--beam-options",
        default="",
        metavar="OPTIONS",
        help="Beam's own options in one word, such as \"--runner=FlinkRunner "
        '--flink_master=HOST:8081" or "--direct_num_workers=2" (default: DirectRunner with one '
        "process per core)",
    )
    return p


def _with_beam_options_joined(argv: Sequence[str]) -> list[str]:
    """Beam's options as one argument: argparse takes a lone word with a dash for an option."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--beam-options":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    args, rest = parser().parse_known_args(_with_beam_options_joined(argv))
    out: Path | None = args.out
    if out is None and not args.check_only:
        raise UserError("prepare needs --out STORE (or --check-only)")
    if args.features is not None:
        _say_store(importing.run(args, rest))
        return 0
    if args.root is None:
        raise UserError("prepare needs --root ROOT")
    importing.check_absent(args)
    if args.beam_options and not args.beam:
        raise UserError("--beam-options goes with --beam")
    for name in ("part", "check_only"):
        if args.beam and getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with --beam")
    encoders = recipes.load(args.encoders, group="encoders")
    sections.override(encoders, rest)
    if args.check_only or out is None:
        report = run_check(args.root, args.assume_fps, args.workers)
        usable_videos(report, args.allow_missing)
        return 0
    given: dict[str, Any] = dict(
        modalities=args.modalities and tuple(m.strip() for m in args.modalities.split(",")),
        allow_missing=args.allow_missing,
        assume_fps=args.assume_fps,
        workers=args.workers,
        limit_videos=args.limit_videos,
    )
    if args.beam:
        from data_prep.beam import prepare as beam_prepare  # Beam may not be installed

        with filling(out):
            store = beam_prepare.prepare(args.root, out, encoders, args.beam_options, **given)
    else:
        store = prepare(args.root, out, encoders, part=args.part, **given)
    if store is not None:
        _say_store(store)
    return 0


def _say_store(store: Store) -> None:
    for split in store.splits:
        videos = store.videos(split)
        say(f"{split}: {len(videos)} videos, {sum(v.num_frames for v in videos):,} frames")
    for video, reason in store.dropped:
        say(f"missing: {video} ({reason})")
    untrained = "; features of UNTRAINED encoders" if store.untrained else ""
    say(f"store complete: {store.path}{untrained}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
