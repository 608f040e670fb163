"""What keeps `features` from learning few people by heart: each part left out, on three corpora.

    python -m benchmarks.few_people --out runs/few_people
    python -m benchmarks.few_people --out runs/few_people --only ridge,features --seeds 0

Makes three corpora and, by other seeds, as many of other people; trains every row on the former,
one process per run, and scores it on the test split and on all training videos of the other corpus,
which are more. Neither has chosen anything. What is finished is not repeated, so the command
continues where it stopped; `--tables` prints what is there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.table import Table

from benchmarks.systems import machine, train_recipe
from maven_jax.errors import UserError, did_you_mean
from maven_jax.evaluation.report import read_scores
from maven_jax.progress import console, say


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Options of `maven-jax synth`, for a corpus and for one of other people."""

    own: str
    others: str


CORPORA = {
    "large offsets": Corpus(
        "--videos 18 --offsets 3 --seed 5", others="--videos 60 --offsets 3 --seconds 20 --seed 91"
    ),
    "streams": Corpus(
        "--streams --videos 28 --seconds 90 --seed 3",
        others="--streams --videos 60 --seed 91",
    ),
    "quickstart": Corpus(
        "--videos 96 --seconds 24 --seed 0", others="--videos 80 --seconds 24 --seed 77"
    ),
}
_ENCODERS = ["--encoders", "tiny"]

# Row -> recipe and what is changed in it.
_PARTS = {
    "without noise": "inputs.noise_std=0.0",
    "without random people": "inputs.video_offset_std=0.0",
    "without other speeds": "inputs.speed=0.0",
    "without hidden modalities": "inputs.modality_dropout=0.0",
    "without weight decay": "optimizer.weight_decay=0.0",
    "without averaged weights": "train.ema_decay=0.0",
    "without ridge beside": "model.ridge.weight=0.0",
    "with recordings' means": "data.centre=0.0,",
}
ROWS: dict[str, tuple[str, ...]] = {
    "ridge": ("features:ridge",),
    "features": ("features",),
    **{name: ("features", change) for name, change in _PARTS.items()},
    "without all of these": ("features", *_PARTS.values()),
    "polar head": ("features", "model.head=polar"),
}


def command(*options: str | Path) -> subprocess.CompletedProcess[str]:
    """One command of `maven-jax`.

    Raises:
        UserError: it failed.
    """
    line = [sys.executable, "-m", "maven_jax", *map(str, options)]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise UserError((done.stderr.strip() or f"{options[0]} failed").splitlines()[-1])
    return done


def make(out: Path, name: str) -> None:
    """The store of a corpus and that of its other people, if they are not there."""
    corpus = CORPORA[name]
    for part, options in (("", corpus.own), ("_others", corpus.others)):
        place = out / f"{_plain(name)}{part}"
        if (place / "made").exists():
            continue
        say(f"making {place}")
        root = place / "corpus"
        command("synth", "--out", root, *options.split())
        made_of = ["--features", root / "features"] if "--streams" in options else _ENCODERS
        command("prepare", "--root", root, "--out", place / "store", *made_of)
        (place / "made").touch()


def run(out: Path, name: str, row: str, seed: int) -> str:
    """Trains and scores one run; returns what to say about it."""
    base = out / _plain(name)
    folder = out / f"{_plain(name)}-{_plain(row)}_seed{seed}"
    kept = folder.with_suffix(".json")
    if kept.exists():
        return ""
    began = time.monotonic()
    changes = [f"data.store={base / 'store'}", f"seed={seed}"]
    truth = base / "corpus" / "truth" / "test_labels"
    train_recipe(folder, *ROWS[row], *changes)
    labels = ["--labels", truth] if truth.is_dir() else []
    scores = {}
    for part, options in (
        ("test", ["--split", "test", *labels]),
        ("others", ["--split", "train", "--store", out / f"{_plain(name)}_others" / "store"]),
    ):
        told = command("evaluate", "--workdir", folder, *options, "--force", "--json").stdout
        scores[part] = json.loads(told)["ccc"]
    scores["validation"] = read_scores(folder, "validation")["ccc"]
    kept.write_text(json.dumps(scores) + "\n")
    said = ", ".join(f"{part} {ccc:.3f}" for part, ccc in scores.items())
    return f"{folder.name}: {said} in {time.monotonic() - began:.0f} s"


def _plain(name: str) -> str:
    return name.replace(" ", "_")


def table(out: Path, names: list[str], rows: list[str], seeds: list[int]) -> Table:
    """Means over the seeds that are there, with their number."""
    result = Table(title="mean CCC on people never seen", title_justify="left")
    result.add_column("", no_wrap=True)
    for name in names:
        for part in ("test", "others"):
            result.add_column(f"{name}, {part}", justify="right")
    for row in rows:
        cells = []
        for name in names:
            stem = f"{_plain(name)}-{_plain(row)}_seed"
            files = [p for p in (out / f"{stem}{seed}.json" for seed in seeds) if p.exists()]
            scores = [json.loads(p.read_text()) for p in files]
            for part in ("test", "others"):
                values = [s[part] for s in scores]
                cells.append(f"{statistics.mean(values):.3f} ({len(values)})" if values else "")
        result.add_row(row, *cells)
    return result


def main() -> int:
    """Makes, trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/few_people"), help="of all runs")
    parser.add_argument("--corpora", default=",".join(CORPORA), help="default: all three")
    parser.add_argument("--only", default=",".join(ROWS), help="rows (default: all)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tables", action="store_true", help="print what is there, train nothing")
    args = parser.parse_args()
    names, rows = args.corpora.split(","), args.only.split(",")
    for option, asked, known in (("corpora", names, CORPORA), ("only", rows, ROWS)):
        for name in asked:
            if name not in known:
                raise UserError(f"--{option}: no {name!r}{did_you_mean(name, list(known))}")
    seeds = [int(seed) for seed in args.seeds.split(",")]
    if not args.tables:
        for name in names:
            make(args.out, name)
        jobs = [(name, row, seed) for seed in seeds for name in names for row in rows]
        jobs = [job for job in jobs if job[1] != "ridge" or job[2] == seeds[0]]  # it has no seed
        for i, (name, row, seed) in enumerate(jobs, start=1):
            if line := run(args.out, name, row, seed):
                say(f"{i}/{len(jobs)} {line}")
    say(machine())
    console.print(table(args.out, names, rows, seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
