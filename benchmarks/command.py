"""`maven-jax bench`: our speed beside that of PyTorch, NumPy and raw reads, on this machine."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

from rich.table import Table

from benchmarks.side_by_side import add_growth
from maven_jax.command_line import Parser, local_path
from maven_jax.errors import UserError, did_you_mean
from maven_jax.outputs import OutputFile
from maven_jax.progress import console, say

# name -> module of the folder `benchmarks` with a `measure(name, repeats, growth)`
BENCHMARKS = {
    "maven_released": "training_steps",
    "maven_paper": "training_steps",
    "rjcma": "training_steps",
    "rjca": "training_steps",
    "swin": "encoders",
    "hubert": "encoders",
    "roberta": "encoders",
    "ccc": "ccc",
    "loader": "loader",
    "resident": "loader",
    "startup": "startup",
}


def table(rows: list[dict[str, Any]]) -> Table:
    """What was measured, a line for each row."""
    lines = Table()
    for heading in ("name", "work", "ours", "peer", "ratio", "goal", "spread", "of peak"):
        lines.add_column(heading, justify="left" if heading in ("name", "work") else "right")
    for row in rows:
        ratio, roofline = row["ratio"], row["facts"].get("roofline")
        goal = "" if row["goal"] is None else f"{row['goal']:.1f}"
        if "limit_s" in row["facts"]:
            goal = f"≤ {row['facts']['limit_s']:.0f} s"
        lines.add_row(
            row["name"],
            row["work"],
            f"{row['ours_s']:.3g} s",
            "" if row["peer_s"] is None else f"{row['peer_s']:.3g} s",
            "" if ratio is None else f"{ratio:.2f}",
            goal,
            f"{row['spread']:.0%}",
            "" if roofline is None else f"{roofline:.0%}",
        )
    return lines


def parser() -> Parser:
    p = Parser(
        prog="maven-jax bench",
        description="Measure this machine: training steps, encoders, ccc and the loader beside "
        "their peers, both in turns in one process. Nothing else should run meanwhile.",
        epilog=f"Names: {', '.join(BENCHMARKS)}.",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: all)")
    p.add_argument("--json", type=local_path, metavar="FILE", help="write the rows there too")
    p.add_argument(
        "--force", action="store_true", help="replace FILE of --json if `bench` did not write it"
    )
    p.add_argument(
        "--repeats", type=int, default=7, metavar="N", help="readings of each (default 7)"
    )
    p.add_argument(
        "--growth", action="store_true", help="at three sizes each, with the exponent of growth"
    )
    return p


def write_rows(file: OutputFile, rows: list[dict[str, Any]]) -> None:
    """Writes the rows as JSON."""
    with file.writing() as path:
        path.write_text(json.dumps(rows, indent=1) + "\n")


def main(argv: list[str]) -> int:
    """Runs the command."""
    args: argparse.Namespace = parser().parse_args(argv)
    for name in args.names:
        if name not in BENCHMARKS:
            raise UserError(f"no benchmark {name!r}{did_you_mean(name, list(BENCHMARKS))}")
    if args.repeats < 1:
        raise UserError(f"--repeats {args.repeats}: expected at least 1")
    file = args.json and OutputFile(args.json, "bench", "its rows", force=args.force)
    rows: list[dict[str, Any]] = []
    for name in args.names or BENCHMARKS:
        try:
            module = importlib.import_module(f"benchmarks.{BENCHMARKS[name]}")
        except ModuleNotFoundError as error:
            raise UserError(
                f"{name}: {error.name} is missing; pip install -e '.[test]' brings the peers"
            ) from error
        for row in module.measure(name, args.repeats, args.growth):
            rows.append(row.to_json())
            ratio = "" if row.ratio is None else f", {row.ratio:.2f} x the peer's speed"
            say(f"{row.name}: {row.ours_s:.3g} s{ratio}")
            if file is not None:  # what is done stays, whatever happens to the rest
                write_rows(file, rows)
    console.print(table(rows))
    for line in add_growth(rows):
        say(line)
    if file is not None:
        write_rows(file, rows)
    return 0
