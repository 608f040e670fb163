"""A user's own media: `maven-jax predict [--checkpoint DIR] MEDIA… [--out DIR]`."""

from __future__ import annotations

import argparse
import glob
import os
import re
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maven_jax import own_files
from maven_jax.command_line import Parser, local_path, positive
from maven_jax.errors import UserError, explain
from maven_jax.media import face_search
from maven_jax.media.track_faces import check_choice
from maven_jax.outputs import OutputFile, Product
from maven_jax.progress import complain, say
from maven_jax.video import many
from maven_jax.video.show import exports
from maven_jax.video.table import Part, check_name, write_table

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
        "--same-face",
        type=float,
        metavar="C",
        help="join what is seen of a person before and behind cuts: from which cosine on of the "
        "mean features of their faces, by the model's own encoder (default: off)",
    )
    p.add_argument(
        "--crops", type=local_path, metavar="DIR", help="the video's face crops, cut elsewhere"
    )
    words = p.add_mutually_exclusive_group()
    words.add_argument(
        "--transcript",
        type=local_path,
        metavar="FILE",
        help="what is said: .srt, .vtt, .json, .TextGrid, .tsv or .txt; or a folder with one of "
        "each medium's name",
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
        "--start", type=_seconds, metavar="S", help="predict from this time on only (1:30 or 90)"
    )
    p.add_argument("--end", type=_seconds, metavar="S", help="and up to this time")
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
        "--export",
        action="append",
        default=[],
        choices=sorted(exports.WRITERS),
        help="also for an annotation program: ELAN's .eaf, Praat's .TextGrid, a BORIS project; may "
        "be given several times",
    )
    p.add_argument(
        "--table",
        type=local_path,
        metavar="FILE",
        help="also one table of all media: .csv or .parquet",
    )
    p.add_argument(
        "--overlay", type=local_path, metavar="MP4", help="also the video with its curves"
    )
    p.add_argument("--json", action="store_true", help="also everything as JSON, beside the CSV")
    p.add_argument(
        "--resume",
        action="store_true",
        help="leave out media whose results this very command has already written whole",
    )
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


def _seconds(text: str) -> float:
    """`90`, `1:30` or `0:01:30` in seconds."""
    if not re.fullmatch(r"(\d{1,6}:){0,2}\d{1,6}(\.\d*)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a time, as in 90 or 1:30")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def predict_all(
    args: argparse.Namespace, predictor: VideoPredictor, refused: Collection[Path] = ()
) -> tuple[list[Part], list[Path]]:
    """Predicts one medium after the other and writes the results.

    One line on stderr names a medium that cannot be used; the others are predicted all the same.

    Args:
        args: the command line.
        predictor: of its model.
        refused: media that are left out, and count as failed.

    Returns:
        The tables in OUT, and the media that failed.
    """
    parts, failed = list[Part](), list(refused)
    for media, stem in zip(args.media, _stems(args.media)):
        if media in refused:
            continue
        try:
            parts += _predict_one(args, predictor, media, stem)
        except Exception as error:
            if len(args.media) == 1:
                raise
            line = explain(error)
            if line is None:  # a mistake of ours, which the other media need not suffer from
                traceback.print_exc()
                line = f"{media}: {type(error).__name__}"
            complain("predict", line)
            failed.append(media)
    return parts, failed


def _predict_one(
    args: argparse.Namespace, predictor: VideoPredictor, media: Path, stem: str
) -> list[Part]:
    """Predicts a medium and writes its files, unless the same call has left them before."""
    transcript = many.transcript_of(media, args.transcript)
    files, overlay = _products(args, media)
    made_by = many.call_digest(_options(args), media, transcript, args.checkpoint)
    if args.resume and (names := files.whole(made_by)) and _has_overlay(media, overlay, made_by):
        say(f"{media}: is there already, nothing to do")
        tables = [name for name in names if name.endswith(".csv")]
        faces = [name[len(stem) : -len(".csv")].rpartition("_face")[2] for name in tables]
        return [Part(str(media), face, args.out / t) for face, t in zip(faces, tables)]
    if args.transcript is not None and transcript is None:
        say(f"note: {media}: no transcript of its name in {args.transcript}")
    predictions = predictor.predict_faces(
        media,
        transcript=transcript,
        asr=args.asr,
        face=args.face,
        face_search=face_search.search_of(args),
        same_face=args.same_face,
        crops=args.crops,
        fps=args.fps,
        smooth=args.smooth,
        calibrated=args.calibrated,
        contributions=args.html,
        start_s=args.start,
        end_s=args.end,
    )
    parts, names, drawn = list[Part](), list[str](), list[str]()
    for prediction in predictions:
        name = stem + (f"_face{prediction.track}" if prediction.track else "")
        drawn += _write(prediction, args, media, name)
        names += _names(args, name)
        parts.append(Part(str(media), prediction.track, args.out / f"{name}.csv"))
    files.mark_whole(names, made_by)
    if overlay is not None and drawn:
        overlay.mark_whole(drawn, made_by)
    return parts


def _has_overlay(media: Path, overlay: Product | None, made_by: str) -> bool:
    """Whether the video with its curves is there, if there is to be one."""
    if overlay is None:
        return True
    from maven_jax.video.show.overlay import has_video

    return bool(overlay.whole(made_by)) or not has_video(media)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Those that the files of one medium depend on."""
    others = ("media", "out", "force", "resume", "workers", "table", "transcript")
    return {name: value for name, value in vars(args).items() if name not in others}


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
    ends += [exports.WRITERS[kind][0] for kind in dict.fromkeys(args.export)]
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


def check_outputs(args: argparse.Namespace) -> list[Path]:
    """Looks at all places of results, before any work.

    Returns:
        Of several media, those whose results would replace anything but earlier results of theirs;
        a line on stderr says what.

    Raises:
        UserError: the only medium is such a one, or no medium's results can be written.
    """
    refused, results = list[Path](), set[Path]()
    for media, stem in zip(args.media, _stems(args.media)):
        try:
            _check_outputs(args, media, stem, results)
        except UserError as error:
            if len(args.media) == 1:
                raise
            complain("predict", str(error))
            refused.append(media)
    if args.table is not None and args.table in results:
        raise UserError(f"--table {args.table}: expected a file of its own")
    return refused


def _check_outputs(args: argparse.Namespace, media: Path, stem: str, results: set[Path]) -> None:
    """Raises UserError if a medium's results may not be written; adds their paths to `results`."""
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


def _write(
    prediction: VideoPrediction, args: argparse.Namespace, media: Path, name: str
) -> list[str]:
    """Writes a prediction's files and shows its summary; returns the names of overlays."""
    # Imported here to start faster: Matplotlib takes a second.
    from maven_jax.video.show.circumplex_path import plot_path
    from maven_jax.video.show.curve import plot_prediction
    from maven_jax.video.show.letters import missing_letters

    files, overlay = _products(args, media)
    names, drawn = _names(args, name), list[str]()
    with files.writing() as folder:
        prediction.to_csv(folder / names[0])
        plot_prediction(prediction, folder / names[1])
        plot_path(prediction, folder / names[2])
        if args.json:
            prediction.write_json(folder / f"{name}.json")
        if args.html:
            from maven_jax.video.show.page import write_page

            write_page(prediction, folder / f"{name}.html", prediction.source)
        for kind in args.export:
            end, write = exports.WRITERS[kind]
            write(prediction, folder / f"{name}{end}")
    written = [args.out / file for file in names]
    if overlay is not None:
        from maven_jax.video.show.overlay import has_video, write_overlay

        if has_video(prediction.source):
            written.append(_overlay(args, name))
            drawn.append(written[-1].name)
            with overlay.writing() as folder:
                write_overlay(prediction, prediction.source, folder / drawn[-1])
        else:
            say(f"note: {media}: no video, so no overlay")
    facts = prediction.facts
    say(prediction.summary())
    if boxes := missing_letters(prediction):
        say(f"  {boxes}")
    say(
        f"  {facts['real_time_factor']:.1f} times as fast as it plays "
        f"({facts['seconds']:.1f} s), peak memory {facts['peak_memory_mib']:,.0f} MiB"
    )
    say(f"  written: {', '.join(map(str, written))}")
    return drawn


def main(argv: list[str]) -> int:
    """`maven-jax predict`."""
    args, values = parser().parse_known_intermixed_args(argv)
    args.overrides = values
    several = len(args.media) > 1
    if args.crops is not None and several:
        raise UserError(f"--crops belongs to one medium, {len(args.media)} are given")
    if args.transcript is not None and several and not args.transcript.is_dir():
        raise UserError(
            f"--transcript {args.transcript}: belongs to one medium, {len(args.media)} are given; "
            "a folder may have one of each medium's name"
        )
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
    refused = check_outputs(args)
    table = None
    if args.table is not None:
        check_name(args.table)
        inputs = [*args.media, *((args.checkpoint,) if args.checkpoint else ())]
        table = OutputFile(args.table, "predict", "a table", inputs=inputs, force=args.force)
    # Imported here to start faster: mistakes above need none of it.
    from maven_jax.video.affect import DEFAULT, load_affect
    from maven_jax.video.predictor import load

    if args.checkpoint is None:
        name = args.affect or DEFAULT
        predictor = load_affect(name, overrides=values, workers=args.workers)
    else:
        predictor = load(args.checkpoint, which=args.step, encoders=values, workers=args.workers)
    parts, failed = predict_all(args, predictor, refused)
    if table is not None and parts:
        with table.writing() as path:
            write_table(parts, path)
        say(f"{len(parts):,} of {len(args.media):,} in one table: {args.table}")
    if failed:
        names = ", ".join(map(str, failed))
        complain("predict", f"{len(failed)} of {len(args.media)} failed: {names}")
    return 2 if failed else 0
