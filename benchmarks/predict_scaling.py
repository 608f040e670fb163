"""What the counted collectives predict for real machines: a calculation, nothing is measured.

    python -m benchmarks.predict_scaling benchmarks/results/collective_bytes.json

The table of docs/scaling.md, which has the formulas, the sources of the numbers and what they leave
out. Efficiency is that of weak scaling: time of one device's step over that of n devices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Machine:
    """Published numbers of a machine.

    Attributes:
        name: of the machine.
        devices: how many it has.
        peak: products a second of each device, by dtype of the model (operations/s, dense).
        link: bytes/s that a device can send in a collective over all devices, at most.
        latency_s: of each collective; assumed.
    """

    name: str
    devices: int
    peak: dict[str, float]
    link: float
    latency_s: float


MACHINES = (
    # float32 products: TF32 on the GPU, one bfloat16 pass on the TPU, JAX's defaults on both.
    Machine("8 H200", 8, {"bfloat16": 989e12, "float32": 494e12}, 450e9, 20e-6),
    # Of 1600 Gbit/s a chip; a ring along one axis of the torus has half of it.
    Machine("v5e-256", 256, {"bfloat16": 197e12, "float32": 197e12}, 200e9, 40e-6),
)
# Shares of the peaks that programs reach; assumed, the same for all.
USED_COMPUTE, USED_LINK = 0.3, 0.7


def ring(row: dict[str, Any], data: int) -> float:
    """Bytes a device sends a step if the `data` axis had so many positions, the others as counted.

    What is reduced over `data` does not change with it, as the batch grows along.
    """
    total = 0.0
    for c in row["collectives"]:
        counted = int(row["mesh"].split("x")[0])
        if c["axis"] == "data" and c["kind"] == "all-reduce" and counted != data:
            total += 2 * (data - 1) / data * c["bytes"]
        else:
            total += c["sent"]
    return total


def predict(row: dict[str, Any], machine: Machine) -> dict[str, float]:
    """Milliseconds of a step's parts, and the efficiency without and with perfect overlap."""
    data, model = (int(n) for n in row["mesh"].split("x"))
    here = machine.devices // model
    work = row["flops_of_the_step"] / (data * model)
    compute = work / (machine.peak[row["dtype"]] * USED_COMPUTE)
    moved = ring(row, here)
    exchange = moved / (machine.link * USED_LINK)
    exchange += row["collectives_per_step"] * machine.latency_s
    return {
        "compute_ms": compute * 1e3,
        "sent_mb": moved / 1e6,
        "exchange_ms": exchange * 1e3,
        "efficiency": compute / (compute + exchange),
        "efficiency_overlapped": min(1.0, compute / max(compute, exchange)),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("counted", type=Path, help="what benchmarks.collective_bytes wrote")
    rows = json.loads(p.parse_args().counted.read_text())
    head = "| machine | system | mesh | counted at | computing, ms | sent by each, MB |"
    print(head + " exchanging, ms | efficiency, exposed to overlapped |")
    print("|---|---|---|---|---|---|---|---|")
    for machine in MACHINES:
        for row in rows:
            _, model = (int(n) for n in row["mesh"].split("x"))
            if row["fsdp"]:
                continue
            v = predict(row, machine)
            print(
                f"| {machine.name} | {row['system']} | {machine.devices // model}x{model} | "
                f"{row['mesh']} {row['platform']} | {v['compute_ms']:.2f} | {v['sent_mb']:.1f} | "
                f"{v['exchange_ms']:.2f} | {v['efficiency']:.0%} to "
                f"{v['efficiency_overlapped']:.0%} |"
            )


if __name__ == "__main__":
    main()
