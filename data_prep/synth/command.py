"""A corpus in Aff-Wild2's layout with planted content: `maven-jax synth --out ROOT …`.

Its form is real (playable video, sound, crops, transcripts, annotations, and their blemishes), its
content is known: docs/synthetic_corpus.md lists what is planted. Same parameters, same bytes.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import cv2
import numpy as np

from data_prep.synth.files import CHALLENGE, write_media
from data_prep.synth.plan import SPLITS, Media, plan_corpus, split_sizes
from data_prep.synth.streams import write_streams
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.files import write_file
from maven_jax.media.annotations import write_annotation
from maven_jax.outputs import RECORDS
from maven_jax.progress import meter, say
from maven_jax.runtime.lock import alone
from maven_jax.runtime.workers import follow_parent

FORMAT = 2  # of the content: another one means other bytes for the same parameters
PARAMETERS = Path("truth/parameters.json")
PLANTED = Path("truth/planted.json")
TEST_LABELS = Path("truth/test_labels")
TEMPLATE = CHALLENGE / "VA_test_template.txt"

README = """\
# A synthetic corpus in Aff-Wild2's layout

Made by `maven-jax synth --videos {videos} --seconds {seconds:g} --seed {seed}`. No person is real.

Valence and arousal are smooth random curves. The drawn face shows mostly valence, the voice
(pitch, loudness, rate, brightness) mostly arousal; the words carry valence, and in the stretches
where they are ironic ({irony:.0%} of the time here) the face shows the opposite of the valence.
Every modality has its own noise, delay and offset per person. maven_jax's
docs/synthetic_corpus.md gives the details.

| split | videos | frames |
|---|---|---|
{table}

Planted blemishes, listed with their places in truth/planted.json:

{blemishes}

truth/ would not exist in a real corpus: it holds the curves of every video, also of the test
videos ({template} lists their frames), and must not be used for training.
"""


def write_corpus(
    out: Path,
    *,
    videos: int,
    seconds: float | int,
    seed: int,
    offsets: float | int = 1.0,
    workers: int = 2,
) -> None:
    """Writes the corpus, or what is missing of it.

    Args:
        out: folder to write to: new, empty, or of an interrupted run with the same parameters.
        videos: number of faces (annotations); a pair in one recording counts as two.
        seconds: duration of each video.
        seed: same seed, same bytes, whatever `workers`.
        offsets: how far people differ from each other in what they show at rest.
        workers: processes.

    Raises:
        UserError: an argument is out of range, or `out` holds other things.
    """
    out = Path(out)
    parameters = _checked(out, videos, seconds, seed, offsets, workers)
    with alone(out, "synth"):
        _write_missing(out, parameters, workers)


def _write_missing(out: Path, parameters: dict, workers: int) -> None:
    """Writes what a corpus of these parameters lacks."""
    videos, seconds, seed = (parameters[k] for k in ("videos", "seconds", "seed"))
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / PARAMETERS, _json(parameters))
    cast = plan_corpus(videos, seed, parameters.get("offsets", 1.0))
    marks = {m.stem: out / "truth" / "planted" / f"{m.stem}.json" for m in cast}
    todo = [m for m in cast if not marks[m.stem].exists()]
    if not todo and (out / PLANTED).exists():
        _write_test_labels(out, cast)
        say(f"synth: {out} is complete")
        return
    tracks = sum(len(m.cast) for m in todo)
    with meter("synth", videos, "videos", initial=videos - tracks) as progress:
        for done in _write_all(out, todo, seconds, seed, workers):
            progress.advance(len(done.cast))
    shutil.rmtree(out / ".partial", ignore_errors=True)
    entries = [json.loads(marks[m.stem].read_text()) for m in cast]
    write_file(out / TEMPLATE, _template(entries).encode())
    write_file(out / "README.md", _readme(parameters, entries).encode())
    planted = {"parameters": parameters, "blemishes": blemishes(entries), "media": entries}
    _write_test_labels(out, cast)
    write_file(out / PLANTED, _json(planted))


def _write_test_labels(out: Path, cast: list[Media]) -> None:
    """The truth of the test videos as annotations, to score predictions by."""
    for name in (member.name for media in cast if media.split == "test" for member in media.cast):
        rows = np.loadtxt(
            out / "truth" / f"{name}.csv", delimiter=",", skiprows=1, usecols=(2, 3), ndmin=2
        )
        write_annotation(out / TEST_LABELS / f"{name}.txt", rows)


def _checked(
    out: Path,
    videos: int,
    seconds: float | int,
    seed: int,
    offsets: float | int,
    workers: int,
) -> dict:
    """The parameters as they are recorded, after checking them against those in `out`."""
    if videos < 1:
        raise UserError(f"--videos {videos}: at least 1")
    if not (math.isfinite(seconds) and 1 <= seconds <= 7200):
        raise UserError(f"--seconds {seconds:g}: from 1 to 7200")
    if seed < 0:
        raise UserError(f"--seed {seed}: 0 or more")
    if workers < 1:
        raise UserError(f"--workers {workers}: at least 1")
    if not 0 <= offsets <= 10:
        raise UserError(f"--offsets {offsets:g}: from 0 to 10")
    parameters = {"format": FORMAT, "videos": videos, "seconds": float(seconds), "seed": seed}
    if offsets != 1:  # corpora from before it was there have none
        parameters["offsets"] = float(offsets)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, not a folder")
    if not out.is_dir() or not any(path.name != RECORDS for path in out.iterdir()):
        return parameters
    try:
        existing = json.loads((out / PARAMETERS).read_text())
    except FileNotFoundError:
        raise UserError(f"{out}: not empty and not a synthetic corpus; name a new folder") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{out / PARAMETERS}: {error}") from None
    existing = existing if isinstance(existing, dict) else {}
    keys = [*parameters, *(k for k in existing if k == "offsets" and k not in parameters)]
    differing = [k for k in keys if existing.get(k) != parameters.get(k)]
    if differing:
        has = ", ".join(f"{k} {existing.get(k)}" for k in differing)
        asked = ", ".join(f"{k} {parameters.get(k)}" for k in differing)
        raise UserError(f"{out}: holds a corpus of {has}, not {asked}; name a new folder")
    return parameters


def _write_all(
    out: Path, todo: list[Media], seconds: float | int, seed: int, workers: int
) -> Iterator[Media]:
    """Writes the videos, yielding each when it is whole."""
    if workers == 1 or len(todo) < 2:
        for media in todo:
            _write_one(out, media, seconds, seed)
            yield media
        return
    # Spawned: a fork may hang once JAX has started its threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(todo)), context, initializer=follow_parent) as pool:
        # Pairs take longest, so they go first.
        order = sorted(todo, key=lambda m: -len(m.cast))
        jobs = {pool.submit(_write_one, out, media, seconds, seed): media for media in order}
        try:
            for job in as_completed(jobs):
                job.result()
                yield jobs[job]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_one(out: Path, media: Media, seconds: float | int, seed: int) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # there are as many workers as cores
    try:
        write_media(out, media, seconds, seed)
    finally:
        cv2.setNumThreads(threads)


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _template(entries: list[dict]) -> str:
    """The challenge's list of the frames to predict; its two values are placeholders."""
    names = sorted((t["name"], e["num_frames"]) for e in entries if e["split"] == "test"
                   for t in e["tracks"])  # fmt: skip
    lines = [f"{name}/{i:05d}.jpg,0,0" for name, num in names for i in range(1, num + 1)]
    return "\n".join(["image_location,valence,arousal", *lines]) + "\n"


def blemishes(entries: list[dict]) -> dict[str, list[str]]:
    """Kind of blemish -> the videos (by name; by stem where the whole recording has it)."""
    tracks = [t for e in entries for t in e["tracks"]]
    return {
        "missing_crops": sorted(t["name"] for t in tracks if t["missing_crops"]),
        "unlabelled_rows": sorted(t["name"] for t in tracks if t["unlabelled_rows"]),
        "annotation_longer": sorted(t["name"] for t in tracks if t["extra_lines"] > 0),
        "annotation_shorter": sorted(t["name"] for t in tracks if t["extra_lines"] < 0),
        "pair": sorted(e["stem"] for e in entries if len(e["tracks"]) > 1),
        "no_transcript": sorted(e["stem"] for e in entries if not e["transcript"]),
        "no_sound": sorted(e["stem"] for e in entries if not e["sound"]),
        "sound_in_mp4_only": sorted(e["stem"] for e in entries if e["sound"] and not e["wav_hz"]),
        "variable_rate": sorted(e["stem"] for e in entries if e["variable_rate"]),
    }


def _readme(parameters: dict, entries: list[dict]) -> str:
    rows = []
    for split in SPLITS:
        chosen = [e for e in entries if e["split"] == split]
        tracks = sum(len(e["tracks"]) for e in chosen)
        frames = sum(e["num_frames"] * len(e["tracks"]) for e in chosen)
        rows.append(f"| {split} | {tracks} | {frames} |")
    ironic = sum(b - a for e in entries for a, b in e["irony"])
    return README.format(
        videos=parameters["videos"],
        seconds=parameters["seconds"],
        seed=parameters["seed"],
        irony=ironic / (parameters["seconds"] * len(entries)),
        table="\n".join(rows),
        blemishes="\n".join(
            f"* {kind.replace('_', ' ')}: {', '.join(names) or 'none'}"
            for kind, names in blemishes(entries).items()
        ),
        template=TEMPLATE,
    )


def main(argv: list[str]) -> int:
    """`maven-jax synth`."""
    parser = Parser(
        prog="maven-jax synth",
        description="Writes a synthetic corpus in exactly Aff-Wild2's layout: mp4, 112x112 crops, "
        "WAV, timed transcripts, annotations and a challenge template, with the blemishes of the "
        "real thing. Drawn faces show mostly valence, voices mostly arousal, words carry valence "
        "and say where the face is ironic. The same parameters give the same bytes; an "
        "interrupted run is continued by the same command.",
    )
    parser.add_argument(
        "--out", type=local_path, required=True, metavar="ROOT", help="folder to write"
    )
    parser.add_argument(
        "--videos", type=int, default=24, metavar="N",
        help="face tracks, about 60/25/15 %% in training, validation and test; from 12 on every "
        "kind of blemish is present (default 24)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=40.0, metavar="S", help="duration of each (default 40)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="default 0")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="W",
        help="processes (default: one per core); the bytes do not depend on it",
    )  # fmt: skip
    parser.add_argument(
        "--offsets", type=float, default=1.0, metavar="F",
        help="how far people differ from each other in what they show at rest (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--streams", action="store_true",
        help="instead of videos write what other systems predicted of them, at 10 Hz: noisy, late, "
        "with offsets per person; for `prepare --features`",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if args.streams:
        write_streams(args.out, videos=args.videos, seconds=args.seconds, seed=args.seed)
        after = f"maven-jax prepare --features {args.out}/features --root {args.out} --out STORE"
        say(f"next: {after}")
        return 0
    write_corpus(
        args.out,
        videos=args.videos,
        seconds=args.seconds,
        seed=args.seed,
        offsets=args.offsets,
        workers=args.workers,
    )
    sizes = ", ".join(f"{size} {split}" for split, size in split_sizes(args.videos).items())
    after = f"maven-jax prepare --root {args.out} --out STORE"
    say(f"{args.out}: {args.videos} videos ({sizes}); next: {after}")
    return 0
