"""Bytes that a training step moves between devices, counted in the compiled program.

    python -m benchmarks.collective_bytes --out benchmarks/results/collective_bytes_cpu.json
    python -m benchmarks.collective_bytes --topology v5e:16x16 --meshes 256x1,64x4 --out FILE

Each system is compiled at its recipe's full size, for simulated CPU devices or, with `--topology`
and libtpu installed (no TPU is needed), by the TPU's own compiler for that slice; nothing runs. The
batch is the recipe's for each position along `data`: weak scaling. `docs/scaling.md` says what
follows from the numbers.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from benchmarks.program_text import Program
from benchmarks.random_store import WIDTHS, RandomStore
from maven_jax import recipes
from maven_jax.errors import UserError
from maven_jax.experiment import Experiment
from maven_jax.runtime.sharding import batch_sharding
from maven_jax.state import count_parameters
from maven_jax.training.stages import StageBuilder

SYSTEMS = ("maven", "rjca", "rjcma")
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "s8": 8, "u8": 8}
_BITS |= {"s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64, "u64": 64}
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?[\w.\-]+ = (?P<shape>\(.*?\)|\S+) (?P<kind>"
    + "|".join(KINDS)
    + r")(?P<start>-start)?\("
)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
# mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}
_NAMED_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}:]*)\}"
)


def arrays(shape: str) -> list[tuple[str, int]]:
    """(dtype, bytes) of the arrays in a shape of HLO text, tuples flattened."""
    sizes = []
    for dtype, dims in _ARRAY.findall(shape):
        if dtype in _BITS:
            count = math.prod(int(d) for d in dims.split(",") if d)
            sizes.append((dtype, count * _BITS[dtype] // 8))
    return sizes


def replica_groups(line: str) -> np.ndarray:
    """Groups of a collective as rows of device positions; pairs for a permutation."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", line):
        return np.array(re.findall(r"(\d+),(\d+)", pairs[1]), int)
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", line):
        return np.array(
            [[int(i) for i in g.split(",")] for g in re.findall(r"{([\d,]+)}", listed[1])]
        )
    named = _NAMED_GROUPS.search(line)
    if named:
        sizes = {k: int(v) for k, v in re.findall(r"'(\w+)'=(\d+)", named[1])}
        ids = _iota(named[2] or str(math.prod(sizes.values())), named[3])
        chosen = re.findall(r"'(\w+)'", named[4])
        order = [list(sizes).index(k) for k in chosen]
        ids = np.moveaxis(ids.reshape(tuple(sizes.values())), order, range(-len(order), 0))
        return ids.reshape(-1, math.prod(sizes[k] for k in chosen))
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota is None:
        raise ValueError(f"unknown replica groups in {line.split('replica_groups')[-1][:200]}")
    ids = _iota(iota[2], iota[3])
    return ids.reshape([int(i) for i in iota[1].split(",")])


def _iota(dims: str, order: str | None) -> np.ndarray:
    """0, 1, … in an array of such dims, transposed if there is an order."""
    shape = [int(i) for i in dims.split(",")]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(i) for i in order.split(",")]) if order else ids


def mesh_axis(groups: np.ndarray, model: int) -> str:
    """The mesh axis along which groups of positions in a (data, model) mesh lie."""
    data, along_model = np.divmod(groups, model)
    names = [
        name
        for name, places in (("data", data), ("model", along_model))
        if (places != places[:, :1]).any()
    ]
    return "+".join(names) or "none"


def sent(kind: str, size: int, group: int) -> float:
    """Bytes that each device sends in a ring.

    Args:
        kind: of the collective.
        size: bytes of its result on one device.
        group: devices that take part.
    """
    rest = (group - 1) / group
    return {
        "all-reduce": 2 * rest * size,
        "all-gather": rest * size,
        "reduce-scatter": (group - 1) * size,
        "all-to-all": rest * size,
        "collective-permute": float(size),
    }[kind]


def collectives(text: str, model: int) -> list[dict[str, Any]]:
    """The collectives of a program, those alike added up.

    Args:
        text: optimised HLO of one device's program.
        model: devices along the mesh axis `model`.

    Returns:
        Rows with kind, dtype, axis, group (devices in each), count (executions a step), bytes (of
        the results on one device, a step) and sent (bytes each device sends in rings).
    """
    rows: dict[tuple, dict[str, Any]] = {}
    for line, times in Program.of(text).executions(in_fusions=True):
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        kind, parts = match["kind"], arrays(match["shape"])
        if match["start"] and kind != "all-reduce":
            # (operands, results[, contexts])
            parts = [p for p in parts if p[0] != "u32" or kind != "collective-permute"]
            parts = parts[len(parts) // 2 :]
        groups = replica_groups(line)
        group = 2 if kind == "collective-permute" else groups.shape[1]
        axis = mesh_axis(groups, model)
        for i, (dtype, size) in enumerate(parts):
            row = rows.setdefault(
                (kind, dtype, axis, group),
                dict(kind=kind, dtype=dtype, axis=axis, group=group, count=0, bytes=0, sent=0.0),
            )
            row["count"] += times if i == 0 else 0
            row["bytes"] += times * size
            row["sent"] += times * sent(kind, size, group)
    return sorted(rows.values(), key=lambda row: -row["sent"])


def flops(jaxpr: Any) -> float:
    """Operations of all matrix products and convolutions, loops counted as often as they run."""
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * out * math.prod(shape[i] for i in contracted)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
            # Dilated inputs and kernels (in gradients) are counted with their zeros.
            total += 2.0 * out * math.prod(kernel) / outputs
        times = params["length"] if name == "scan" else 1
        for value in params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * flops(inner)
    return total


def make_mesh(data: int, model: int, topology: str) -> Mesh:
    """A mesh of simulated CPU devices, or of a slice that is not there.

    Raises:
        UserError: libtpu is missing, or knows no such slice of that size.
    """
    devices = list(slice_devices(topology) if topology else jax.devices())
    if len(devices) < data * model:
        raise UserError(f"mesh {data}x{model}: {topology or 'this machine'} has {len(devices)}")
    kinds = (AxisType.Auto,) * 2
    devices = devices[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), axis_types=kinds, devices=devices)


def slice_devices(topology: str) -> Sequence[Any]:
    """The chips of a slice for which the TPU's compiler compiles, without any TPU.

    Raises:
        UserError: libtpu is missing, or does not know the slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "the TPU's compiler is missing: pip install the libtpu that goes with"
            f" jaxlib {importlib.metadata.version('jaxlib')} (pip install 'jax[tpu]')"
        )
    # Without these libtpu looks for the machine's TPU, and lets no other process load it.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"topology {topology!r}: {reason}") from error


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A training step for a mesh, compiled but never run.

    Attributes:
        config: the recipe.
        mesh: of the devices that it is for.
        parameters: how many the model has.
        flops: of all matrix products and convolutions, on all devices.
        compiled: the program of one device.
        compile_s: seconds that it took.
    """

    config: recipes.Config
    mesh: Mesh
    parameters: int
    flops: float
    compiled: Any
    compile_s: float


def compile_step(config: recipes.Config, widths: Mapping[str, int], mesh: Mesh) -> CompiledStep:
    """Compiles the training step of a recipe, with its batch at each position along `data`."""
    store = RandomStore(1, config.data.window.length, widths)
    experiment = Experiment(config, store, mesh=mesh)
    stage = StageBuilder(experiment, steps_per_epoch=100, total_steps=100_000).build(0, 0)
    rows, sharding = config.train.batch_size * mesh.shape["data"], batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=sharding),
        experiment.example(),
    )
    with jax.set_mesh(mesh):
        traced = stage.step.trace(stage.like, batch)
        began = time.monotonic()
        compiled = traced.lower(lowering_platforms=(mesh.devices.flat[0].platform,)).compile()
    return CompiledStep(
        config=config,
        mesh=mesh,
        parameters=count_parameters(stage.like.weights.params),
        flops=flops(traced.jaxpr.jaxpr),
        compiled=compiled,
        compile_s=round(time.monotonic() - began, 1),
    )


def measure(system: str, mesh: Mesh, fsdp: bool) -> dict[str, Any]:
    """Compiles one training step and counts what it moves."""
    config = recipes.load(system)
    config.mesh.fsdp = fsdp
    step = compile_step(config, WIDTHS[system], mesh)
    data, along_model = mesh.shape["data"], mesh.shape["model"]
    counted = collectives(step.compiled.as_text(), along_model)
    by_axis: dict[str, float] = defaultdict(float)
    for row in counted:
        by_axis[row["axis"]] += row["sent"]
    cost, memory = step.compiled.cost_analysis() or {}, step.compiled.memory_analysis()
    return dict(
        system=system,
        platform=mesh.devices.flat[0].platform,
        mesh=f"{data}x{along_model}",
        fsdp=fsdp,
        parameters=step.parameters,
        windows_per_data_shard=config.train.batch_size,
        frames=config.data.window.length,
        dtype=config.model.dtype,
        flops_of_the_step=step.flops,
        flops_by_cost_analysis=cost.get("flops"),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        sent_by_axis=dict(by_axis),
        collectives_per_step=sum(row["count"] for row in counted),
        collectives=counted,
        compile_s=step.compile_s,
    )


def report(row: dict[str, Any]) -> str:
    """A row in a few lines of text."""
    fsdp = " fsdp" if row["fsdp"] else ""
    lines = [
        f"{row['system']} {row['platform']} mesh {row['mesh']}{fsdp}: "
        f"{row['flops_of_the_step'] / 1e12:.3f} TFLOP a step on all devices, "
        + ", ".join(f"{k} {v / 1e6:.2f} MB" for k, v in row["sent_by_axis"].items())
        + f" sent by each device in {row['collectives_per_step']} collectives"
        f" (compiled in {row['compile_s']:.0f} s)"
    ]
    for c in row["collectives"]:
        if c["sent"] > 0.005 * sum(row["sent_by_axis"].values()):
            lines.append(
                f"    {c['kind']:<18} {c['dtype']:<5} {c['axis']:<10} of {c['group']:<4}"
                f"{c['count']:>5} x  {c['bytes'] / 1e6:10.2f} MB  sent {c['sent'] / 1e6:10.2f} MB"
            )
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--systems", default=",".join(SYSTEMS))
    p.add_argument("--meshes", default="8x1,4x2,2x4", help="data x model, with `f` behind: fsdp")
    p.add_argument("--topology", default="", help="of a TPU slice, as v5e:16x16; needs libtpu")
    p.add_argument("--out", type=Path, required=True, help="JSON file; rows are added to it")
    args = p.parse_args()
    meshes = [(m.rstrip("f"), m.endswith("f")) for m in args.meshes.split(",")]
    jax.config.update("jax_platforms", "cpu")
    largest = max(math.prod(map(int, m.split("x"))) for m, _ in meshes)
    jax.config.update("jax_num_cpu_devices", 1 if args.topology else largest)
    rows = json.loads(args.out.read_text()) if args.out.exists() else []
    for system in args.systems.split(","):
        for sizes, fsdp in meshes:
            data, model = map(int, sizes.split("x"))
            row = measure(system, make_mesh(data, model, args.topology), fsdp)
            row["topology"] = args.topology
            print(report(row), flush=True)
            keys = ("system", "mesh", "fsdp", "topology")
            rows = [r for r in rows if any(r[k] != row[k] for k in keys)] + [row]
            args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
