"""A user's own media: `maven-jax predict [--checkpoint DIR] MEDIA… [--out DIR]`."""

from __future__ import annotations

import argparse
import glob
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from maven_jax import own_files
from maven_jax.command_line import Parser, local_path, positive
from maven_jax.errors import UserError, explain
from maven_jax.media import face_search
from maven_jax.media.track_faces import check_choice
from maven_jax.outputs import Product
from maven_jax.progress import complain, say

if TYPE_CHECKING:
    from maven_jax.video.prediction import VideoPrediction
    from maven_jax.video.predictor import VideoPredictor


def parser() -> Parser:
    """The command line."""
    p = Parser(
        prog="maven-jax predict",
        description="Predict valence and arousal of every frame of videos (mp4, mov, mkv, webm, "
        "avi), sounds (wav, mp3) or folders of face crops. For each, OUT gets a CSV with a row per "
        "frame, a curve and a path through the circumplex (PNG).",
        epilog="What the media lack (a face, sound, words) is left out, said, and marked in the "
        "rows. Without --checkpoint, published networks predict: weak evidence, which every output "
        "says. --encoders.MODALITY.source=FOLDER says where this machine has the encoders' "
        "weights. Exit code 2: a file could not be predicted; the others are.",
        allow_abbrev=False,
    )
    p.add_argument(
        "media", nargs="+", type=local_path, metavar="MEDIA", help="files or folders of crops"
    )
    p.add_argument(
        "--checkpoint",
        type=local_path,
        metavar="DIR",
        help="workdir or exported bundle (default: published networks, see --affect)",
    )
    p.add_argument(
        "--affect",
        metavar="RECIPE",
        help="without checkpoint: which published networks (default: `default`, those that "
        "`maven-jax weights` fetched); --affect.places.sad=-0.7,-0.3 sets a value",
    )
    p.add_argument(
        "--out",
        default="predicted",
        type=local_path,
        metavar="DIR",
        help="folder for the results (default: predicted)",
    )
    p.add_argument(
        "--step", default="best", help="of a workdir: best (default), latest or a step's number"
    )
    p.add_argument(
        "--face",
        default="largest",
        metavar="largest|longest|left|right|ID|all",
        help="which face: in every frame the most prominent one (default), the longest seen, the "
        "outermost as the viewer sees it, one by its number in the order of appearance, or all, "
        "each by itself",
    )
    face_search.add_options(p)
    p.add_argument(
        "--crops", type=local_path, metavar="DIR", help="the video's face crops, cut elsewhere"
    )
    words = p.add_mutually_exclusive_group()
    words.add_argument(
        "--transcript",
        type=local_path,
        metavar="FILE",
        help="what is said: .srt, .vtt, .json or .txt",
    )
    words.add_argument(
        "--asr",
        type=local_path,
        metavar="DIR",
        help="folder of a Whisper model that listens (needs torch)",
    )
    p.add_argument(
        "--fps",
        type=positive,
        metavar="F",
        help="frames per second of a folder of crops; rows per second of sound alone (default 30)",
    )
    p.add_argument(
        "--calibrated",
        action="store_true",
        help="add calibrated columns: delay, box filter and map that `maven-jax tune` chose",
    )
    p.add_argument(
        "--smooth",
        type=_widths,
        metavar="V,A",
        help="add smoothed columns: box filters over so many frames of valence and of arousal",
    )
    own_files.add_argument(p)
    p.add_argument(
        "--html", action="store_true", help="also one page with video, curves, words, contributions"
    )
    p.add_argument(
        "--overlay", type=local_path, metavar="MP4", help="also the video with its curves"
    )
    p.add_argument("--json", action="store_true", help="also everything as JSON, beside the CSV")
    p.add_argument(
        "--force",
        action="store_true",
        help="replace files of the same names that this command did not write for the same medium",
    )
    p.add_argument("--workers", type=int, metavar="N", help="threads (default: one per core)")
    return p


def _widths(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d{1,6},\d{1,6}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers of frames, as in 20,50")
    valence, arousal = text.split(",")
    return int(valence), int(arousal)


def predict_all(args: argparse.Namespace, predictor: VideoPredictor) -> list[Path]:
    """Predicts one medium after the other and writes the results; returns those that failed.

    One line on stderr names a medium that cannot be used; the others are predicted all the same.
    """
    failed = []
    for media, stem in zip(args.media, _stems(args.media)):
        try:
            predictions = predictor.predict_faces(
                media,
                transcript=args.transcript,
                asr=args.asr,
                face=args.face,
                face_search=face_search.search_of(args),
                crops=args.crops,
                fps=args.fps,
                smooth=args.smooth,
                calibrated=args.calibrated,
                contributions=args.html,
            )
            for prediction in predictions:
                _write(prediction, args, media, stem)
        except Exception as error:
            if len(args.media) == 1:
                raise
            line = explain(error)
            if line is None:  # a mistake of ours, which the other media need not suffer from
                traceback.print_exc()
                line = f"{media}: {type(error).__name__}"
            complain("predict", line)
            failed.append(media)
    return failed


def _stems(media: list[Path]) -> Iterator[str]:
    """The beginning of each medium's file names; of equal ones, all but the first get a number."""
    taken = set[str]()
    for path in media:
        stem = path.name if path.is_dir() else path.stem
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name)
        yield name


def _names(args: argparse.Namespace, name: str) -> list[str]:
    """The files of one prediction in OUT."""
    ends = [".csv", ".png", "_circumplex.png"]
    ends += [end for end, asked in ((".json", args.json), (".html", args.html)) if asked]
    return [name + end for end in ends]


def _overlay(args: argparse.Namespace, name: str) -> Path:
    """The video with curves; one of several has a name of its own."""
    path: Path = args.overlay
    several = len(args.media) > 1 or args.face == "all"
    return path.with_name(f"{path.stem}_{name}{path.suffix}") if several else path


def _products(args: argparse.Namespace, media: Path) -> tuple[Product, Product | None]:
    """What a medium's files belong to: those in OUT, and the overlay if there is to be one."""
    given = (args.transcript, args.asr, args.face_model, args.crops, args.checkpoint)
    inputs = [*args.media, *(path for path in given if path is not None)]
    purpose = os.path.realpath(media)
    files = Product(args.out, "predict", purpose, inputs=inputs, force=args.force)
    if args.overlay is None:
        return files, None
    folder = args.overlay.parent
    return files, Product(folder, "overlay", purpose, inputs=inputs, force=args.force)


def check_outputs(args: argparse.Namespace) -> None:
    """Raises UserError if a result would replace anything but an earlier result of its medium."""
    results = set[Path]()
    for media, stem in zip(args.media, _stems(args.media)):
        files, overlay = _products(args, media)
        names = _names(args, stem + (f"_face{args.face}" if args.face.isdigit() else ""))
        if args.face == "all":  # how many there are is known later
            names = [path.name for path in args.out.glob(f"{glob.escape(stem)}_face[0-9]*")]
        files.check(*names)
        results |= {args.out / name for name in names}
        if overlay is not None:
            path = _overlay(args, stem)
            if path in results or path.suffix.lower() != ".mp4":
                raise UserError(f"--overlay {path}: expected an MP4 of its own, such as out.mp4")
            overlay.check(path.name)


def _write(prediction: VideoPrediction, args: argparse.Namespace, media: Path, stem: str) -> None:
    """Writes a prediction's files and shows its summary."""
    # Imported here to start faster: Matplotlib takes a second.
    from maven_jax.video.show.circumplex_path import plot_path
    from maven_jax.video.show.curve import plot_prediction

    name = stem + (f"_face{prediction.track}" if prediction.track else "")
    files, overlay = _products(args, media)
    names = _names(args, name)
    with files.writing() as folder:
        prediction.to_csv(folder / names[0])
        plot_prediction(prediction, folder / names[1])
        plot_path(prediction, folder / names[2])
        if args.json:
            prediction.write_json(folder / f"{name}.json")
        if args.html:
            from maven_jax.video.show.page import write_page

            write_page(prediction, folder / f"{name}.html", prediction.source)
    written = [args.out / file for file in names]
    if overlay is not None:
        from maven_jax.video.show.overlay import has_video, write_overlay

        if has_video(prediction.source):
            written.append(_overlay(args, name))
            with overlay.writing() as folder:
                write_overlay(prediction, prediction.source, folder / written[-1].name)
        else:
            say(f"note: {media}: no video, so no overlay")
    facts = prediction.facts
    say(prediction.summary())
    say(
        f"  {facts['real_time_factor']:.1f} times as fast as it plays "
        f"({facts['seconds']:.1f} s), peak memory {facts['peak_memory_mib']:,.0f} MiB"
    )
    say(f"  written: {', '.join(map(str, written))}")


def main(argv: list[str]) -> int:
    """`maven-jax predict`."""
    args, values = parser().parse_known_intermixed_args(argv)
    for option in ("crops", "transcript"):
        if getattr(args, option) is not None and len(args.media) > 1:
            raise UserError(f"--{option} belongs to one medium, {len(args.media)} are given")
    for media in args.media:
        if len(args.media) == 1 and not media.exists():
            raise UserError(f"{media}: no such file or folder")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out}: expected a folder, this is a file")
    check_choice(args.face)
    face_search.search_of(args)
    if args.checkpoint is not None and args.affect is not None:
        raise UserError("--affect is for predictions without --checkpoint")
    if args.workers is not None and args.workers < 1:
        raise UserError("--workers: expected at least 1")
    check_outputs(args)
    # Imported here to start faster: mistakes above need none of it.
    from maven_jax.video.affect import DEFAULT, load_affect
    from maven_jax.video.predictor import load

    if args.checkpoint is None:
        name = args.affect or DEFAULT
        predictor = load_affect(name, overrides=values, workers=args.workers)
    else:
        predictor = load(args.checkpoint, which=args.step, encoders=values, workers=args.workers)
    failed = predict_all(args, predictor)
    if failed:
        names = ", ".join(map(str, failed))
        complain("predict", f"{len(failed)} of {len(args.media)} failed: {names}")
    return 2 if failed else 0
