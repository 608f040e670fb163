"""All systems and their ablations on one synthetic corpus: ccc over three seeds, size, speed.

    python -m benchmarks.systems --out runs/systems
    python -m benchmarks.systems --out runs/systems --only rjcma,rjcma_steps

Trains every row of `ROWS` by the recipe `configs/systems.py`, one process per run, `--jobs` of them
at a time; runs that are finished are not repeated, so the command continues where it stopped. Then
measures the training step of every row, one after the other with nothing else running, and prints
the tables (`--tables` prints them from what is there). The corpus and its features are those of the
quickstart: synthetic people, untrained encoders. The tables compare fusions on equal terms; they
say nothing about real faces.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from maven_jax import recipes
from maven_jax.data.pipeline import to_batch
from maven_jax.errors import UserError, did_you_mean
from maven_jax.experiment import Experiment
from maven_jax.progress import console, say
from maven_jax.runtime.sharding import place_batch
from maven_jax.state import count_parameters
from maven_jax.training.stages import StageBuilder


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a variant of `configs/systems.py` and what is changed in it."""

    label: str
    variant: str
    changes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name of its workdirs."""
        parts = [
            self.variant,
            *(c.replace("model.", "").replace("data.", "") for c in self.changes),
        ]
        return "_".join(parts).replace("=", "-").replace(",", "+").replace(".", "-")


def _modalities(names: str) -> Row:
    return Row(f"rjcma, {names.replace(',', ' + ')}", "rjcma", (f"data.modalities={names}",))


ROWS: dict[str, tuple[Row, ...]] = {
    "systems": (
        Row("training mean", "mean"),
        Row("concat + MLP", "concat"),
        Row("late fusion, BLSTM", "late_fusion", ("model.temporal=blstm",)),
        Row("late fusion, TCN", "late_fusion", ("model.temporal=tcn",)),
        Row("LFAN", "lfan"),
        Row("MAVEN", "maven"),
        Row("concat + MLP, no text", "concat", ("data.modalities=visual,audio",)),
        Row("MAVEN, no text", "maven", ("data.modalities=visual,audio",)),
        Row("RJCA, no text", "rjca"),
        Row("RJCA, with text", "rjca", ("data.modalities=visual,audio,text",)),
        Row("RJCMA", "rjcma"),
        Row("GRJCA", "grjca"),
        Row("HGRJCA", "hgrjca"),
        Row("TAGF", "tagf"),
    ),
    "modalities": (
        *map(_modalities, ("visual", "audio", "text")),
        *map(_modalities, ("visual,audio", "visual,text", "audio,text")),
        Row("rjcma, all three", "rjcma"),
    ),
    "recursion": tuple(
        Row(f"rjcma, l = {steps}", "rjcma", (f"model.num_steps={steps}",) if steps != 3 else ())
        for steps in range(5)
    ),
    "correlation": (
        Row("rjcma, time", "rjcma"),
        Row("rjcma, channel", "rjcma", ("model.correlation=channel",)),
        Row("rjcma, dense", "rjcma", ("model.correlation=dense",)),
    ),
    "temporal": (
        Row("rjcma, TCN", "rjcma"),
        Row("rjcma, BLSTM", "rjcma", ("model.temporal=blstm",)),
        Row("rjcma, none", "rjcma", ("model.temporal=none",)),
    ),
}


def distinct(groups: list[str]) -> list[Row]:
    """The rows of some tables, each once."""
    return list({row.key: row for group in groups for row in ROWS[group]}.values())


def workdir(out: Path, row: Row, seed: int) -> Path:
    return out / f"{row.key}_seed{seed}"


def train(out: Path, row: Row, seed: int) -> str:
    """Trains one run in a process of its own; returns what to say about it."""
    folder = workdir(out, row, seed)
    if (folder / "eval" / "validation.json").exists():
        return ""
    command = [sys.executable, "-m", "maven_jax", "train", "--config", f"systems:{row.variant}"]
    command += ["--workdir", str(folder), f"--config.seed={seed}"]
    command += [f"--config.{change}" for change in row.changes]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"FAILED {folder.name}: {(done.stderr.strip() or '?').splitlines()[-1]}"
    score = read_score(folder)["ccc"]
    return f"{folder.name}: ccc {score:.3f} in {time.monotonic() - began:.0f} s"


def read_score(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval" / "validation.json").read_text())


def config_of(row: Row) -> recipes.Config:
    config = recipes.load(f"systems:{row.variant}")
    recipes.override(config, [f"--config.{change}" for change in row.changes])
    return config


def measure(row: Row, repeats: int = 20) -> float:
    """Training windows per second: the median step on one batch that is already on the device."""
    config = config_of(row)
    config.train.accumulate_steps = 1
    experiment = Experiment.of(config)
    builder = StageBuilder(experiment, steps_per_epoch=10, total_steps=1000)
    if not count_parameters(builder.params):
        return float("nan")
    stage = builder.build(0, 0)
    state = builder.fresh(stage)
    windows = experiment.windows(config.data.train_split, train=True)
    size = config.train.batch_size
    spread = np.linspace(0, len(windows) - 1, size).astype(int)
    batch = to_batch(experiment.source(windows).read(spread))
    seconds = []
    with jax.set_mesh(experiment.mesh):
        batch = place_batch(batch, experiment.mesh)
        for _ in range(repeats):
            began = time.perf_counter()
            state, metrics = stage.step(state, batch)
            jax.block_until_ready((state, metrics))
            seconds.append(time.perf_counter() - began)
    return size / statistics.median(seconds[2:])


def table(out: Path, group: str, seeds: list[int], speeds: dict[str, float]) -> Table:
    """The rows of one table; a row with fewer runs than seeds says how many it has."""
    scores_table = Table(title=f"{group}: ccc on validation, mean ± std of {len(seeds)} seeds")
    scores_table.title_justify = "left"
    columns = ("", "valence", "arousal", "ccc", "parameters", "T", "win/s")
    for name in columns:
        scores_table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for row in ROWS[group]:
        folders = [workdir(out, row, seed) for seed in seeds]
        scores = [read_score(f) for f in folders if (f / "eval" / "validation.json").exists()]
        if not scores:
            continue
        cells = []
        for name in ("ccc_valence", "ccc_arousal", "ccc"):
            values = [s[name] for s in scores]
            cells.append(f"{statistics.mean(values):.3f} ±{statistics.pstdev(values):.3f}")
        label = row.label + ("" if len(scores) == len(seeds) else f" ({len(scores)} seeds)")
        speed = speeds.get(row.key, float("nan"))
        config = config_of(row)
        scores_table.add_row(
            label,
            *cells,
            f"{scores[0]['num_parameters']:,}",
            str(config.data.window.length),
            "-" if np.isnan(speed) else f"{speed:.0f}",
        )
    return scores_table


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
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/systems"), help="folder of the runs")
    parser.add_argument("--only", default="", help=f"tables of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--tables", action="store_true", help="print what is there, train nothing")
    parser.add_argument("--no-speed", action="store_true", help="do not measure windows/s")
    args = parser.parse_args()
    groups = args.only.split(",") if args.only else list(ROWS)
    for group in groups:
        if group not in ROWS:
            raise UserError(f"--only: no table {group!r}{did_you_mean(group, list(ROWS))}")
    seeds = [int(seed) for seed in args.seeds.split(",")]
    speed_file = args.out / "windows_per_second.json"
    if not args.tables:
        # The first run makes the corpus and the store; the others would make them again.
        jobs = [(args.out, row, seed) for seed in seeds for row in distinct(groups)]
        say(train(*jobs[0]))
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for i, line in enumerate(pool.map(lambda job: train(*job), jobs), start=1):
                if line:
                    say(f"{i}/{len(jobs)} {line}")
    if not args.tables and not args.no_speed:
        speeds = {row.key: measure(row) for row in distinct(groups)}
        speed_file.write_text(json.dumps(speeds, indent=1))
    speeds = json.loads(speed_file.read_text()) if speed_file.exists() else {}
    say(machine())
    for group in groups:
        console.print(table(args.out, group, seeds, speeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
