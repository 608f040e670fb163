"""Time to compile the recursion, and size of its program, for more and more steps.

    python -m benchmarks.recursion_compile
    python -m benchmarks.recursion_compile --recursion-alone --repeats 9

The training step of `configs/rjcma.py` at its full size, as `maven-jax train` compiles it, or with
`--recursion-alone` the forward pass and gradients (of parameters and inputs) of its recursion: 3
modalities of widths 256, 128 and 128, windows of 300 frames, batch 12. "lowered" is
what JAX hands to XLA (StableHLO), "optimised" what XLA makes of it. The time is that of XLA alone
(`lowered.compile()`), processor seconds beside those of the clock, both the least of `--repeats`:
other work on the machine can only add to them, and less to the former. The numbers of steps take
turns, so that a slow minute meets them all; each time the program is lowered and compiled anew.

What is asked of the training step: with l = 8 time and size are within 1.2 of those with l = 1 if
the steps share weights, and within 1.3 if each has its own. Of the recursion alone that cannot be
asked: XLA replaces a loop of one turn by its body, which then fuses with what is around it, so that
l = 1 is no loop when compiled, and l = 2 and up are. Ratios to l = 2 are printed for that reason,
and `--keep-loops` switches that pass of XLA off, so that all l are compiled as loops.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks.random_store import RandomStore
from maven_jax import recipes
from maven_jax.experiment import Experiment
from maven_jax.models.fusion.recursion import Recursion
from maven_jax.models.fusion.recursion_config import RecursionConfig
from maven_jax.training.stages import StageBuilder

WIDTHS = {"visual": 256, "audio": 128, "text": 128}
LIMITS = {True: 1.2, False: 1.3}


def machine() -> str:
    """The processor, its cores, and the versions that matter."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].split(":")[1].strip() if lines else name
    device = jax.devices()[0]
    load = os.getloadavg()[0]
    return (
        f"{name}, {os.cpu_count()} cores, load {load:.1f} at the start; {device.platform}"
        f" ({device.device_kind}); Python {platform.python_version()}, jax {jax.__version__}"
    )


def lower(num_steps: int, share_weights: bool, args: argparse.Namespace) -> jax.stages.Lowered:
    """Forward pass and gradients of a recursion, lowered for this machine."""
    config = RecursionConfig(
        num_steps=num_steps,
        share_weights=share_weights,
        remat=args.remat,
        correlation=args.correlation,
        window_length=args.frames,
        attention_dim=32,
        joint="linear",
        joint_dim=512,
        query="linear",
        correlation_dropout_rate=args.dropout_rate,
    )
    module = Recursion(config)
    key = jax.random.key(0)
    x = {
        m: jax.ShapeDtypeStruct((args.batch, args.frames, width), jnp.float32)
        for m, width in WIDTHS.items()
    }
    mask = jax.ShapeDtypeStruct((args.batch, args.frames), jnp.bool)
    params = jax.eval_shape(
        lambda x, mask: module.init({"params": key}, x, mask, deterministic=True), x, mask
    )

    def loss(params, x, mask, key):
        steps = module.apply(params, x, mask, deterministic=False, rngs={"dropout": key})
        return sum(jnp.square(value[-1]).mean() for value in steps.values())

    # A new function each time: nothing is taken from a cache.
    return jax.jit(jax.grad(loss, argnums=(0, 1))).lower(
        params, x, mask, jax.eval_shape(lambda: key)
    )


def lower_training(num_steps: int, share_weights: bool, args: argparse.Namespace):
    """The whole training step of the recipe, lowered for this machine."""
    config = recipes.load("rjcma")
    changes = dict(num_steps=num_steps, share_weights=share_weights, remat=args.remat)
    changes |= dict(correlation=args.correlation, correlation_dropout_rate=args.dropout_rate)
    config.model.update(changes)
    config.train.accumulate_steps = 1
    widths = dict(visual=512, audio=128, text=768)
    experiment = Experiment(config, RandomStore(1, config.data.window.length, widths))
    stage = StageBuilder(experiment, steps_per_epoch=10, total_steps=1000).build(0, 0)
    rows = config.train.batch_size
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), experiment.example()
    )
    with jax.set_mesh(experiment.mesh):
        return stage.step.lower(stage.like, batch)


def sizes(text: str) -> tuple[int, int]:
    """Instructions (lines with an assignment) and bytes of a program's text."""
    return sum(" = " in line for line in text.splitlines()), len(text)


def measure(share_weights: bool, args: argparse.Namespace) -> None:
    """Prints one table: a line for each number of steps."""
    program = lower if args.recursion_alone else lower_training
    options = {"xla_disable_hlo_passes": "simplify-while-loops"} if args.keep_loops else None
    wall: dict[int, list[float]] = {count: [] for count in args.steps}
    processor: dict[int, list[float]] = {count: [] for count in args.steps}
    texts: dict[int, tuple[str, str]] = {}
    for _ in range(args.repeats):
        for count in args.steps:
            lowered = program(count, share_weights, args)
            start, start_processor = time.perf_counter(), time.process_time()
            compiled = lowered.compile(options)
            processor[count].append(time.process_time() - start_processor)
            wall[count].append(time.perf_counter() - start)
            texts.setdefault(count, (lowered.as_text(), compiled.as_text() or ""))
    first, second = args.steps[:2]
    print(f"\n{'shared' if share_weights else 'stacked'} weights")
    head = ("l", "clock s", "processor s", f"/ l={first}", f"/ l={second}")
    head += ("lowered", "bytes", "optimised", "bytes")
    print(("{:>3}" + "{:>12}" * 8).format(*head))
    for count in args.steps:
        least = min(processor[count])
        ratios = [f"{least / min(processor[other]):.3f}" for other in (first, second)]
        times = [f"{min(wall[count]):.3f}", f"{least:.3f}"]
        before, after = map(sizes, texts[count])
        print(("{:>3}" + "{:>12}" * 8).format(count, *times, *ratios, *before, *after))
    for name, seconds in (("processor", processor), ("clock", wall)):
        ratio = min(seconds[args.steps[-1]]) / min(seconds[first])
        verdict = "within" if ratio <= LIMITS[share_weights] else "NOT within"
        print(
            f"l={args.steps[-1]} over l={first}, {name}: {ratio:.3f}, {verdict}"
            f" {LIMITS[share_weights]}",
            flush=True,
        )


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recursion-alone", action="store_true")
    parser.add_argument("--correlation", default="time", choices=("channel", "time", "dense"))
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=300, help="of the recursion alone")
    parser.add_argument("--batch", type=int, default=12, help="of the recursion alone")
    parser.add_argument("--dropout-rate", type=float, default=0.0)
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--keep-loops", action="store_true", help="loops of one turn, too")
    args = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    print(machine())
    print(
        f"{'recursion alone' if args.recursion_alone else 'training step'}: "
        f"correlation={args.correlation}, {args.batch} windows of {args.frames} frames, dropout"
        f" {args.dropout_rate}, remat={args.remat},"
        f" keep_loops={args.keep_loops}, {args.repeats} repeats"
    )
    for share_weights in (True, False):
        measure(share_weights, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
