"""What the TPU's own compiler says of each recipe's training step: time, memory, collectives.

    pip install 'jax[tpu]'      (no TPU is needed)
    python -m benchmarks.tpu --recipe rjca --topology v5e:2x2 --mesh 4x1 --json FILE
    python -m benchmarks.tpu --json FILE --table

Compiles the step at its full size, with the recipe's batch at each position along `data`, and adds
up `estimated_cycles` of the optimised program, operations in loops as often as the loops run.
Cycles are the compiler's estimate, not a measurement: nothing runs. They leave out what collectives
and copies behind other work take. `--table` compiles nothing and prints the rows of FILE as the
table of docs/scaling.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.collective_bytes import CompiledStep, collectives, compile_step, make_mesh
from benchmarks.program_text import Program
from benchmarks.random_store import WIDTHS
from maven_jax import recipes
from maven_jax.command_line import Parser
from maven_jax.errors import UserError, did_you_mean, explain
from maven_jax.progress import say

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_RESULT = re.compile(r"%?([\w.\-]+) = (\(?[a-z]+\d*\[[\d,]*\])")
_ORIGIN = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Chip:
    """What Google states of a chip, and what follows.

    Attributes:
        name: of its slices' topologies.
        flops: bfloat16 operations a second, stated.
        hbm_bytes: of memory, stated.
        clock_hz: of the compiler's cycles.
    """

    name: str
    flops: float
    hbm_bytes: float
    clock_hz: float


# Rates and memory: Google Cloud's pages on each chip, which state no clocks. Those of v5e and v5p
# are the stated rate over two operations of each cell of the 4 and 2 x 4 matrix units of 128 x 128:
# the compiler's estimates of a product of 8192³ are then 88 and 90 % of the rate. That of v6e gives
# the compiler's estimate of a large copy the same share of the stated bandwidth as on v5e, 81 %.
CHIPS = {
    "TPU v5 lite": Chip("v5e", 197e12, 16 * 2**30, 1.5e9),
    "TPU v5": Chip("v5p", 459e12, 95 * 2**30, 1.75e9),
    "TPU v6 lite": Chip("v6e", 918e12, 32 * 2**30, 1.75e9),
}


def estimate(program: Program) -> Counter[tuple[str, str, int]]:
    """Cycles of (origin in the model, shape of the result, executions), the dearest first."""
    cycles: Counter[tuple[str, str, int]] = Counter()
    for line, times in program.executions(in_fusions=False):
        estimated, result = _CYCLES.search(line), _RESULT.search(line)
        if estimated and result:
            origin = _ORIGIN.search(line)
            # Some operations are the compiler's own.
            name = origin[1].partition("/")[2] if origin else result[1]
            cycles[name, result[2].lstrip("("), times] += int(estimated[1]) * times
    return Counter(dict(cycles.most_common()))


def memory_verdict(needed: float, chip: Chip, data: int, model: int) -> str:
    """Whether the step fits a chip, or the next mesh of as many chips that splits the model."""
    if needed <= chip.hbm_bytes:
        return "fits"
    return f"needs mesh {data // 2}x{2 * model}" if data % 2 == 0 else "needs more chips"


def measure(recipe: str, topology: str, data: int, model: int, top: int) -> dict[str, Any]:
    """Compiles the step of a recipe for a slice.

    Raises:
        UserError: no such slice, or the compiler refuses the step.
    """
    mesh = make_mesh(data, model, topology)
    kind = mesh.devices.flat[0].device_kind
    if kind not in CHIPS:
        raise UserError(f"topology {topology!r}: no figures of a {kind!r}; known: {list(CHIPS)}")
    chip = CHIPS[kind]
    row = dict(recipe=recipe, topology=topology, mesh=f"{data}x{model}", chip=chip.name)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    config = recipes.load(recipe)
    row |= versions | dict(batch=config.train.batch_size, frames=config.data.window.length)
    try:
        step = compile_step(config, WIDTHS[recipe], mesh)
    except jax.errors.JaxRuntimeError as error:
        # Steps that do not fit a chip are refused.
        return row | dict(refused=str(error).splitlines()[0][:300])
    return row | numbers(step, chip, top)


def numbers(step: CompiledStep, chip: Chip, top: int) -> dict[str, Any]:
    """What a row says of a compiled step."""
    data, model = step.mesh.shape["data"], step.mesh.shape["model"]
    text = step.compiled.as_text()
    cycles, moved = estimate(Program.of(text)), collectives(text, model)
    memory = step.compiled.memory_analysis()
    needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return dict(
        cycles=cycles.total(),
        ms=1e3 * cycles.total() / chip.clock_hz,
        products_ms=1e3 * step.flops / (data * model) / chip.flops,
        flops=step.flops,
        temporary_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        memory=memory_verdict(needed, chip, data, model),
        collectives=sum(c["count"] for c in moved),
        sent_bytes=sum(c["sent"] for c in moved),
        compile_s=step.compile_s,
        dearest=[
            dict(ms=1e3 * n / chip.clock_hz, origin=origin, shape=shape, times=times)
            for (origin, shape, times), n in cycles.most_common(top)
        ],
    )


def report(row: dict[str, Any]) -> str:
    """A row in a few lines of text."""
    name = f"{row['recipe']} {row['topology']} mesh {row['mesh']}"
    if "refused" in row:
        return f"{name}: refused by the compiler: {row['refused']}"
    lines = [
        f"{name}: estimated {row['ms']:.1f} ms a step ({row['cycles'] / 1e6:.1f} M cycles), "
        f"products at the stated rate {row['products_ms']:.2f} ms; "
        f"{row['temporary_bytes'] / 1e9:.2f} GB temporary + {row['argument_bytes'] / 1e9:.2f} GB "
        f"arguments a chip: {row['memory']}; {row['collectives']} collectives, each chip sends "
        f"{row['sent_bytes'] / 1e6:.1f} MB; compiled in {row['compile_s']:.0f} s"
    ]
    for c in row["dearest"]:
        lines.append(
            f"    {c['ms']:8.3f} ms {c['times']:>5} x {c['shape']:<26} {c['origin'][-90:]}"
        )
    return "\n".join(lines)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table of Markdown."""
    heads = ("recipe", "B x T a chip", "slice", "mesh", "estimated, ms", "products' floor, ms")
    heads += ("temporary + arguments, GB", "", "collectives", "sent by each, MB", "compiled in, s")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [row["recipe"], f"{row['batch']} x {row['frames']}", row["topology"], row["mesh"]]
        if "refused" in row:
            cells += ["refused", *[""] * 6]
        else:
            cells += [
                f"{row['ms']:.2f}",
                f"{row['products_ms']:.2f}",
                f"{row['temporary_bytes'] / 1e9:.2f} + {row['argument_bytes'] / 1e9:.2f}",
                row["memory"],
                str(row["collectives"]),
                f"{row['sent_bytes'] / 1e6:.1f}",
                f"{row['compile_s']:.0f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parser() -> Parser:
    p = Parser(prog="python -m benchmarks.tpu", description=__doc__.partition("\n")[0])
    p.add_argument("--recipe", nargs="+", default=list(WIDTHS), metavar="NAME", help="default: all")
    p.add_argument("--topology", nargs="+", default=["v5e:2x2"], metavar="SLICE")
    p.add_argument("--mesh", metavar="DATAxMODEL", help="default: all chips along data")
    p.add_argument("--top", type=int, default=8, metavar="N", help="dearest operations printed")
    p.add_argument("--json", type=Path, metavar="FILE", help="rows are added to it or replaced")
    p.add_argument("--table", action="store_true", help="print the rows of FILE, compile nothing")
    return p


def mesh_of(text: str | None, topology: str) -> tuple[int, int]:
    """The (data, model) sizes of a mesh; without a text all chips of the slice lie along data."""
    sizes = re.fullmatch(r"(\d+)x(\d+)", text) if text else None
    if text and sizes is None:
        raise UserError(f"--mesh {text}: expected two numbers, as 4x1")
    if sizes:
        return int(sizes[1]), int(sizes[2])
    chips = 1
    for size in topology.partition(":")[2].split("x"):
        chips *= int(size) if size.isdigit() else 1
    return chips, 1


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    args: argparse.Namespace = parser().parse_args(argv)
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    if args.table:
        say(table(rows))
        return 0
    for recipe in args.recipe:
        if recipe not in WIDTHS:
            raise UserError(f"no recipe {recipe!r} on features{did_you_mean(recipe, list(WIDTHS))}")
    jax.config.update("jax_platforms", "cpu")
    for topology in args.topology:
        for recipe in args.recipe:
            row = measure(recipe, topology, *mesh_of(args.mesh, topology), args.top)
            say(report(row))
            keys = ("recipe", "topology", "mesh")
            rows = [r for r in rows if any(r[k] != row[k] for k in keys)] + [row]
            if args.json:
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(explain(error))
