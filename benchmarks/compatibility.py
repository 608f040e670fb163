"""What an earlier commit wrote, opened and scored by this one: stores, checkpoints, bundles.

    git worktree add ../before COMMIT
    python -m benchmarks.compatibility --before ../before --work FOLDER [--clip VIDEO]

With the earlier tree: a synthetic corpus and its store, a short run of every system, a bundle of
each, and a prediction of the clip. With this one: the same runs evaluated, the same bundles opened
and their predictions of whole splits and of the clip compared, and the first run continued. What is
in FOLDER already is not written again. Exit code 1 if a number differs by more than rounding.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maven_jax.progress import say
from tests.support.root import ROOT

SYSTEMS = (
    *("concat", "late_fusion", "lfan", "maven"),
    *("rjca", "rjcma", "grjca", "hgrjca", "tagf"),
)
# Scores are means over thousands of frames; a frame's value is one float32 sum after another. What
# encoders make of a clip is rounded to float16: where a float32 sum comes out a bit different, a
# feature may move by 2^-11 of its size, and the prediction with it.
TOLERANCES = {"scores": 2e-6, "values": 2e-5, "clip": 1e-3}


def maven_jax(tree: Path, work: Path, *words: str | Path) -> None:
    """Runs a command of a tree in `work`, and ends with its output if it fails."""
    command = [sys.executable, "-m", "maven_jax", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(tree.resolve())}
    ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    if ended.returncode:
        output = ended.stdout[-2000:] + ended.stderr[-2000:]
        raise SystemExit(f"{tree}: {' '.join(command)} failed:\n{output}")


def write(tree: Path, work: Path, clip: Path | None) -> None:
    """Everything of the earlier commit, but for what is there."""
    for name in SYSTEMS:
        if not (work / name / "finished.json").exists():
            say(f"training {name} with {tree}")
            recipe = tree.resolve() / "configs" / f"systems.py:{name}"
            changes = ("--config.train.num_epochs=1.0",)
            maven_jax(tree, work, "train", "--config", recipe, "--workdir", name, *changes)
        if not (work / f"bundle_{name}").exists():
            out = f"bundle_{name}"
            maven_jax(tree, work, "export", "--checkpoint", name, "--out", out, "--platforms=cpu")
        if clip and not (work / "predicted" / name).exists():
            predict(tree, work, name, clip, "predicted")


def predict(tree: Path, work: Path, name: str, clip: Path, folder: str) -> None:
    """Predicts the clip by a bundle into `folder`/`name`."""
    out = f"{folder}/{name}"
    maven_jax(tree, work, "predict", clip.resolve(), "--checkpoint", f"bundle_{name}", "--out", out)


def numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a JSON value with their keys."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from numbers(part, f"{key}.{name}")
    elif isinstance(value, int | float):
        yield key, float(value)


def read_json(path: Path) -> dict[str, float]:
    """The numbers of a JSON file by key."""
    return dict(numbers(json.loads(path.read_text())))


def read_csv(path: Path) -> dict[str, float]:
    """The numbers of a CSV by column and row."""
    cells = {}
    for number, row in enumerate(csv.DictReader(path.open())):
        for column, text in row.items():
            try:
                cells[f"{column} of row {number}"] = float(text)
            except ValueError:
                continue
    return cells


def largest_difference(ours: dict[str, float], theirs: dict[str, float], what: str) -> float:
    """Of two sets of numbers with the same keys."""
    if ours.keys() != theirs.keys():
        raise SystemExit(f"{what}: other entries than before: {ours.keys() ^ theirs.keys()}")
    if not ours:
        raise SystemExit(f"{what}: no numbers")
    return max(abs(ours[key] - theirs[key]) for key in ours)


def check(work: Path, clip: Path | None) -> bool:
    """Whether this commit opens all of it and gives the same numbers."""
    fine = True
    for name in SYSTEMS:
        again = work / "again" / name
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(work / name, again)
        shutil.rmtree(again / "eval")
        maven_jax(ROOT, work, "evaluate", "--workdir", again)
        pairs = [("scores", read_json, work / name, again, ["eval/validation.json"])]
        tables = sorted(p.relative_to(work / name) for p in (work / name / "eval").rglob("*.csv"))
        pairs.append(("values", read_csv, work / name, again, tables))
        if clip:
            shutil.rmtree(work / "predicted_again" / name, ignore_errors=True)
            predict(ROOT, work, name, clip, "predicted_again")
            before, now = work / "predicted" / name, work / "predicted_again" / name
            pairs.append(("clip", read_csv, before, now, [f"{clip.stem}.csv"]))
        worst = dict.fromkeys(TOLERANCES, 0.0)
        for kind, read, before, now, files in pairs:
            for file in files:
                apart = largest_difference(read(now / file), read(before / file), str(file))
                worst[kind] = max(worst[kind], apart)
        same = all(worst[kind] <= limit for kind, limit in TOLERANCES.items())
        fine &= same
        say(
            f"{name}: {len(tables)} videos; apart: "
            + ", ".join(f"{kind} {largest:.1e}" for kind, largest in worst.items())
            + ("" if same else "  DIFFERS")
        )
    again = work / "again" / SYSTEMS[0]
    recipe = ROOT / "configs" / f"systems.py:{SYSTEMS[0]}"
    maven_jax(ROOT, work, "inspect", "runs/synthetic/store")
    more = "--config.train.num_epochs=1.0"
    maven_jax(ROOT, work, "train", "--config", recipe, "--workdir", again, more)
    say("the store is read, the first run continues")
    return fine


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--before", type=Path, required=True, help="checkout of the earlier commit")
    p.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    p.add_argument("--clip", type=Path, help="a video that every bundle predicts")
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    write(args.before, args.work, args.clip)
    return 0 if check(args.work, args.clip) else 1


if __name__ == "__main__":
    sys.exit(main())
