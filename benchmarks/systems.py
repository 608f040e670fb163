"""All systems on one synthetic corpus, scored against the truth of its test videos.

    python -m benchmarks.systems --out runs/systems
    python -m benchmarks.systems --out runs/systems --only ridge,maven --seeds 0,1,2

Trains every row of `ROWS` by the recipe `configs/systems.py`, one process per run, `--jobs` of them
at a time; runs that are finished are not repeated, so the command continues where it stopped. Then
prints the table of `benchmarks.ceiling` (`--tables` prints it of what is there). The corpus and its
features are those of the quickstart: synthetic people, untrained encoders. The table compares
systems on equal terms; it says nothing about real faces.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import jax

from benchmarks.ceiling import table
from maven_jax.errors import UserError, did_you_mean
from maven_jax.evaluation.report import read_scores
from maven_jax.progress import console, say
from maven_jax.runs.workdir import FINISHED_FILE

# Row -> recipe and what is changed in it.
_CENTRED = "model.temporal=centred_tcn"
_CHANNEL = "model.correlation=channel"
ROWS: dict[str, tuple[str, ...]] = {
    "mean": ("systems:mean",),
    "ridge": ("systems:ridge",),
    "concat": ("systems:concat",),
    "early_fusion_tcn": ("systems:early_fusion",),
    "late_fusion_blstm": ("systems:late_fusion", "model.temporal=blstm"),
    "late_fusion_tcn": ("systems:late_fusion",),
    "late_fusion_centred": ("systems:late_fusion", _CENTRED),
    "lfan": ("systems:lfan",),
    "lfan_centred": ("systems:lfan", _CENTRED),
    "lfan_abaw3_centred": ("systems:lfan_abaw3", _CENTRED),
    "maven": ("systems:maven",),
    "maven_polar": ("systems:maven", "model.head=polar"),
    "rjca": ("systems:rjca",),
    "rjca_long": (
        "systems:rjca",
        "data.window.length=64",
        "data.window.step_s=0.125",
        "train.batch_size=12",
    ),
    "rjcma": ("systems:rjcma",),
    "rjcma_centred": ("systems:rjcma", _CENTRED),
    "rjcma_channel": ("systems:rjcma", _CHANNEL),
    "grjca_centred": ("systems:grjca", _CENTRED, _CHANNEL),
    "hgrjca_centred": ("systems:hgrjca", _CENTRED, _CHANNEL),
    "tagf_centred": ("systems:tagf", _CENTRED, _CHANNEL),
    "transformer": ("systems:transformer",),
    "mamba": ("systems:mamba",),
    "ras_reliability": ("systems:ras_reliability",),
    "ras_experts": ("systems:ras_experts",),
}


def train(out: Path, name: str, seed: int) -> str:
    """Trains one run in a process of its own; returns what to say about it."""
    folder = out / f"{name}_seed{seed}"
    if (folder / FINISHED_FILE).exists():
        return ""
    began = time.monotonic()
    try:
        train_recipe(folder, *ROWS[name], f"seed={seed}")
    except UserError as error:
        return f"FAILED {folder.name}: {error}"
    scores = " and ".join(
        f"{split} {read_scores(folder, split)['ccc']:.3f}" for split in ("validation", "test")
    )
    return f"{folder.name}: {scores} in {time.monotonic() - began:.0f} s"


def train_recipe(folder: Path, recipe: str, *changes: str) -> None:
    """Trains by a recipe with changes such as `seed=1`, in a process of its own.

    Raises:
        UserError: it failed; with its last line.
    """
    command = [sys.executable, "-m", "maven_jax", "train", "--config", recipe]
    command += ["--workdir", str(folder), *(f"--config.{change}" for change in changes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError((done.stderr.strip() or "train failed").splitlines()[-1])


def machine() -> str:
    """One line about what ran it."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    device = jax.devices()[0]
    return (
        f"{os.cpu_count()} x {model}; {device.platform} {device.device_kind}; "
        f"jax {jax.__version__}, python {platform.python_version()}"
    )


def main() -> int:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/systems"), help="folder of the runs")
    parser.add_argument("--only", default=",".join(ROWS), help="rows (default: all)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--tables", action="store_true", help="print what is there, train nothing")
    args = parser.parse_args()
    names = args.only.split(",")
    for name in names:
        if name not in ROWS:
            raise UserError(f"--only: no row {name!r}{did_you_mean(name, list(ROWS))}")
    seeds = [int(seed) for seed in args.seeds.split(",")]
    jobs = [(args.out, name, seed) for seed in seeds for name in names]
    if not args.tables:
        # The first run makes the corpus and the store; the others would make them again.
        say(train(*jobs[0]))
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for i, line in enumerate(pool.map(lambda job: train(*job), jobs), start=1):
                if line:
                    say(f"{i}/{len(jobs)} {line}")
    say(machine())
    runs = [out / f"{name}_seed{seed}" for out, name, seed in jobs]
    finished = sorted((r for r in runs if (r / FINISHED_FILE).exists()), key=runs.index)
    by_row = sorted(finished, key=lambda run: names.index(run.name.rpartition("_seed")[0]))
    console.print(table(Path("runs/synthetic/corpus"), by_row, "ridge"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
