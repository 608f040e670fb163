"""Trains every run of a sweep: on this machine, as a Slurm array, or printed as commands.

    python -m launch.sweep sweeps/learning_rate --out runs/lr --jobs 2
    python -m launch.sweep sweeps/learning_rate --out runs/lr --slurm --at-most 8 \
        --sbatch=--time=4:00:00 --sbatch=--gpus-per-node=1
    python -m launch.sweep sweeps/learning_rate --out runs/lr --print
    python -m launch.sweep sweeps/learning_rate --out runs/lr --status

A sweep is a recipe with a function more: `get_sweep() -> list` of dicts with `name`, which becomes
the run's folder in --out, `overrides` (key of the recipe: value), and perhaps `variant`, the
recipe's argument. Every run is checked before the first begins. The same command again leaves out
what is finished and continues what was stopped. On a machine with GPUs each run has one of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from maven_jax import own_files, recipes
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError
from maven_jax.files import write_file
from maven_jax.inputs import read_json
from maven_jax.progress import console, format_duration, say
from maven_jax.recipes import check_sections
from maven_jax.runs.workdir import FINISHED_FILE
from maven_jax.runtime.lock import alone

_KEYS = ("name", "overrides", "variant")
# One folder in --out; a point in front is what no name of a run may have.
_STATE = ".sweep"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]*")
_SCRIPT = Path(__file__).resolve().with_name("slurm.sbatch")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep."""

    index: int
    name: str
    recipe: str
    overrides: tuple[str, ...]  # as `recipes.override` takes them
    out: Path

    @property
    def workdir(self) -> Path:
        return self.out / self.name

    @property
    def words(self) -> list[str]:
        """What stands behind `maven-jax train`."""
        return ["--config", self.recipe, "--workdir", str(self.workdir), *self.overrides]

    @property
    def log(self) -> Path:
        return self.out / _STATE / "logs" / f"{self.name}.log"

    def finished(self) -> dict[str, Any] | None:
        """What the run wrote at its end; None if it is not there yet."""
        path = self.workdir / FINISHED_FILE
        pattern = {"steps": int, "best_step": (int, None), "ccc": float}
        return read_json(path, "what a run writes at its end", pattern) if path.exists() else None


def _as_text(value: Any) -> str:
    """A value as `--config.key=` takes it."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) if value else "()"
    return str(value)


def _read_list(file: Path) -> list[Any]:
    module = own_files.run(file, "sweep")
    if not hasattr(module, "get_sweep"):
        raise UserError(f"{file} has no get_sweep(): a recipe, but not a sweep")
    with own_files.errors_of(file):
        runs = module.get_sweep()
    if not isinstance(runs, list) or not runs:
        raise UserError(f"{file}: get_sweep() has to return a list with a dict per run")
    return runs


def read_sweep(name: str, out: Path) -> list[Run]:
    """The runs of a sweep, each known to be a recipe with values that it has.

    Args:
        name: the sweep's file, or its name in the folder of recipes.
        out: folder of all runs.

    Raises:
        UserError: no such file, a run without a usable name, a name twice, an override that the
            recipe does not take.
    """
    file, arg = recipes.find(name)
    if arg:
        raise UserError(f"{name}: a variant is given per run, by the key 'variant'")
    runs, seen = [], set()
    for index, entry in enumerate(_read_list(file)):
        where = f"{file}: run {index}"
        if not isinstance(entry, dict) or not {"name", "overrides"} <= set(entry) <= set(_KEYS):
            raise UserError(f"{where}: expected a dict of name, overrides and perhaps variant")
        title = entry["name"]
        if not isinstance(title, str) or not _NAME.fullmatch(title):
            raise UserError(
                f"{where}: the name {title!r} cannot be a folder in --out; "
                "letters, digits and _.,=+- are allowed, a letter, digit or _ first"
            )
        if title.lower() in seen:
            raise UserError(f"{where}: the name {title!r} is used twice")
        seen.add(title.lower())
        variant = entry.get("variant", "")
        run = Run(
            index,
            title,
            f"{file}:{variant}" if variant else str(file),
            tuple(f"--config.{k}={_as_text(v)}" for k, v in entry["overrides"].items()),
            out,
        )
        try:
            config = recipes.load(run.recipe)
            recipes.override(config, run.overrides)
            check_sections(config)
        except UserError as error:
            raise UserError(f"{where} ({title}): {error}") from error
        runs.append(run)
    return runs


def make_stores(runs: Sequence[Run]) -> None:
    """Makes the synthetic corpora that recipes ask for: runs that begin together must not."""
    for run in runs:
        config = recipes.load(run.recipe)
        recipes.override(config, run.overrides)
        if config.data.synthetic is not None:
            from data_prep.synth.store import ensure_store

            recipes.call(
                ensure_store, config.data.synthetic, "data.synthetic", store=config.data.store
            )


def table(runs: Sequence[Run], states: dict[str, str]) -> Table:
    """State and score of every run.

    Args:
        runs: all of the sweep.
        states: name -> what is known beyond the files.
    """
    rows = Table()
    for name in ("run", "state", "steps", "best step", "ccc"):
        rows.add_column(name, justify="left" if name in ("run", "state") else "right")
    for run in runs:
        done = run.finished()
        if done is not None:
            cells = ["finished", str(done["steps"]), str(done["best_step"]), f"{done['ccc']:.4f}"]
        else:
            begun = "stopped" if run.workdir.exists() else "waiting"
            cells = [states.get(run.name, begun), "", "", ""]
        rows.add_row(run.name, *cells)
    return rows


def visible_gpus() -> list[str]:
    """The GPUs that runs may have, as CUDA_VISIBLE_DEVICES names them."""
    if os.environ.get("JAX_PLATFORMS", "cuda").split(",")[0] not in ("cuda", "gpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [x for x in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if x]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.split()


class LocalQueue:
    """Runs on this machine, some at a time.

    Args:
        runs: those that are not finished.
        jobs: how many at a time.
        gpus: a run has one of them, if there are any.

    Raises:
        UserError: more runs at a time than GPUs.
    """

    def __init__(self, runs: Sequence[Run], jobs: int, gpus: Sequence[str]):
        if gpus and jobs > len(gpus):
            raise UserError(f"--jobs {jobs} on {len(gpus)} GPU(s): a run needs one of its own")
        self._waiting, self._total = list(runs), len(runs)
        self._free: list[str | None] = [*gpus][:jobs] if gpus else [None] * jobs
        self._running: dict[subprocess.Popen[bytes], tuple[Run, str | None, float]] = {}
        self._signal = 0
        self.states: dict[str, str] = {}

    def _stop(self, number: int, frame: Any) -> None:
        self._signal = number
        for process in self._running:
            process.terminate()

    def _begin(self) -> None:
        run, device = self._waiting.pop(0), self._free.pop(0)
        run.log.parent.mkdir(parents=True, exist_ok=True)
        env = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        with run.log.open("ab") as log:
            # In a session of its own: Ctrl-C reaches it as SIGTERM, from here, once.
            process = subprocess.Popen(
                [sys.executable, "-m", "maven_jax", "train", *run.words],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[process] = (run, device, time.monotonic())
        self.states[run.name] = "running"
        say(f"{run.name}: begins; {run.log}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        run, device, began = self._running.pop(process)
        self._free.append(device)
        took = format_duration(time.monotonic() - began)
        done = run.finished()
        if done is not None and process.returncode == 0:
            say(f"{run.name}: finished in {took}, ccc {done['ccc']:.4f}")
        elif process.returncode == 0 or self._signal:
            self.states[run.name] = "stopped"
            say(f"{run.name}: stopped after {took}")
        else:
            self.states[run.name] = f"failed ({process.returncode})"
            lines = run.log.read_text(errors="replace").strip().splitlines()
            say(f"{run.name}: failed after {took}: {lines[-1] if lines else '?'} ({run.log})")

    def work(self) -> bool:
        """Trains all; True if none failed and none was stopped."""
        before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            while self._running or (self._waiting and not self._signal):
                while self._waiting and self._free and not self._signal:
                    self._begin()
                    if self._signal:  # it came while the run began
                        self._stop(self._signal, None)
                for process in [p for p in self._running if p.poll() is not None]:
                    self._end(process)
                time.sleep(0.1)
        finally:
            for process in self._running:
                process.terminate()
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._signal:
            say("stopped by a signal; the same command continues")
        return not any(s.startswith(("failed", "stopped")) for s in self.states.values())


def submit(runs: Sequence[Run], out: Path, at_most: int, options: Sequence[str]) -> str:
    """Submits the runs as one Slurm array; returns its number.

    Args:
        runs: those that are not finished.
        out: folder of all runs.
        at_most: tasks at a time.
        options: of sbatch.

    Raises:
        UserError: no sbatch here, an earlier array of this folder is still queued, sbatch refuses.
    """
    if shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch on this machine")
    words, number = out.resolve() / _STATE / "words", out / _STATE / "array"
    words.mkdir(parents=True, exist_ok=True)
    if number.exists():
        earlier = number.read_text().strip()
        asked = subprocess.run(
            ["squeue", "--noheader", f"--jobs={earlier}"], capture_output=True, text=True
        )
        if asked.stdout.strip():
            raise UserError(f"{out}: job {earlier} is still in the queue (`squeue -j {earlier}`)")
    for run in runs:
        (words / f"{run.index}.args").write_bytes(b"".join(w.encode() + b"\0" for w in run.words))
    tasks = ",".join(str(run.index) for run in runs) + f"%{at_most}"
    done = subprocess.run(
        ["sbatch", "--parsable", f"--array={tasks}", *options, str(_SCRIPT)],
        env=os.environ | {"ARRAY": str(words)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"sbatch: {done.stderr.strip() or done.stdout.strip()}")
    job = done.stdout.strip().partition(";")[0]
    write_file(number, f"{job}\n".encode())
    return job


def parser() -> Parser:
    p = Parser(
        prog="python -m launch.sweep",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("sweep", help="a recipe with get_sweep(): a file or a name")
    p.add_argument("--out", required=True, type=local_path, help="folder of all runs")
    p.add_argument("--jobs", type=int, default=1, help="runs at a time on this machine")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--slurm", action="store_true", help="submit a Slurm array")
    how.add_argument("--print", action="store_true", help="print the commands, run nothing")
    how.add_argument("--status", action="store_true", help="print the table of runs, run nothing")
    p.add_argument("--at-most", type=int, default=16, help="with --slurm: tasks at a time")
    p.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="with --slurm: an option"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a run failed or was stopped."""
    args = parser().parse_args(argv)
    for name in ("jobs", "at_most"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')}: 1 is the least")
    runs = read_sweep(args.sweep, args.out)
    unfinished = [run for run in runs if run.finished() is None]
    if args.print:
        for run in unfinished:
            print(shlex.join(["maven-jax", "train", *run.words]))
        return 0
    if args.status:
        console.print(table(runs, {}))
        return 0
    with alone(args.out, "sweep"):
        say(f"{len(runs)} runs, {len(runs) - len(unfinished)} of them finished")
        make_stores(unfinished)
        if args.slurm:
            if unfinished:
                say(f"submitted job {submit(unfinished, args.out, args.at_most, args.sbatch)}")
            return 0
        queue = LocalQueue(unfinished, args.jobs, visible_gpus())
        good = queue.work()
        console.print(table(runs, queue.states))
        return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"sweep: {error}", file=sys.stderr)
        sys.exit(2)
