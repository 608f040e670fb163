"""What one GPU does: training steps and encoders in bfloat16, and an epoch of Aff-Wild2's size.

    python -m benchmarks.gpu [--row NAME …] [--budget SECONDS] [--trace] [--json FILE]
    python -m benchmarks.gpu --at-once --peers none         ours alone, compiled side by side
    JAX_PLATFORMS=cpu python -m benchmarks.gpu --toy        the same at toy size, anywhere

Ours, PyTorch eager and `torch.compile` take turns in one process on the same batch, all in bfloat16
(PyTorch by autocast), after the training steps' outputs were compared in float32 on the device. A
reading is several steps in a row and the wait for the last. Our program compiles in a thread while
`torch.compile` works; nothing is timed meanwhile. `mfu` is the FLOPs of our matrix products and
convolutions over the time and over what the maker states for the chip, `roofline` the same over a
large bfloat16 product measured in the same process. Compiling is timed twice: into an empty cache,
and from it. The epoch draws 1.7 M frames of random features onto the device and trains the recipe's
windows of them (`data.resident`). Each row is printed and written when it is there, and one that
fails leaves the others; without PyTorch's CUDA build the peers' columns stay empty.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

# JAX and PyTorch share the memory: neither takes it all at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import torch

from benchmarks import encoders, training_steps
from benchmarks.command import write_rows
from benchmarks.compiling import Compiling, cached_seconds, empty_cache, memory_facts
from benchmarks.epochs import Epoch
from benchmarks.random_store import RandomStore
from benchmarks.row_processes import measure_in_turns, wait_for_turn
from benchmarks.side_by_side import Row, in_turns, machine, product_flops, versions
from benchmarks.torch_peers import KINDS, Begin, Peers
from maven_jax import recipes
from maven_jax.command_line import Parser, positive
from maven_jax.convert.huggingface import load_encoder
from maven_jax.errors import UserError, did_you_mean
from maven_jax.experiment import Experiment
from maven_jax.outputs import OutputFile
from maven_jax.progress import say, timed
from maven_jax.runtime import trace

# Dense bfloat16 FLOP/s that NVIDIA states, by a part of JAX's name of the device.
STATED = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
# Aff-Wild2's training split: videos and frames of each (1.7 M together).
VIDEOS, FRAMES = 350, 4857
# name -> what the maker of the claim takes; then the same for toys
TRAINING: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "maven_released": (dict(batch_size=64, frames=300), dict(batch_size=2, frames=20)),
    "rjcma": (dict(batch_size=64, frames=300), dict(batch_size=1, frames=300)),
    "rjca": (dict(batch_size=256, frames=16), dict(batch_size=1, frames=16)),
    "maven_paper": (dict(batch_size=64, frames=300), dict(batch_size=1, frames=20, layers=1)),
}
# name -> frames, seconds or tokens, and how many of them
ENCODING = {
    "swin": ((1, 128), (1, 1)),
    "hubert": ((10, 32), (1, 1)),
    "roberta": ((128, 64), (8, 1)),
}
# name -> recipe, widths, windows of a batch, and those of a toy
EPOCHS = {
    "rjcma_epoch": ("rjcma", dict(visual=512, audio=128, text=768), (64, 2)),
    "maven_epoch": ("maven", dict(visual=1024, audio=768, text=768), (64, 2)),
}
# name -> seconds that --budget keeps free for it. JAX does not give memory back to PyTorch, so the
# largest step comes after all other peers.
EXPECTED_S = {
    "maven_released": 40,
    "rjcma": 80,
    "rjca": 60,
    "swin": 60,
    "hubert": 45,
    "roberta": 35,
    "maven_paper": 100,
    "rjcma_epoch": 70,
    "maven_epoch": 100,
}
NAMES = tuple(EXPECTED_S)
# A reading lasts about so long, and has so many steps at the most.
_READING_S, _MOST_STEPS = 0.3, 10
_TRACED_STEPS = 3
# What a row takes to measure, once its programs are compiled.
_MEASURING_S = 9.0


def traced(begin: Callable[[int], Any]) -> dict[str, Any] | None:
    """Records some steps and shows what took longest; `begin` takes how many.

    None if that fails: what was measured before stays.
    """
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with timed("a trace"), trace.recorded(folder):
                jax.block_until_ready(begin(_TRACED_STEPS))
            summary = trace.summarize(folder, _TRACED_STEPS)
    except Exception:  # of the profiler, which asks much of its surroundings
        traceback.print_exc()
        return None
    for line in summary.lines():
        say(line)
    return summary.to_json()


class Bench:
    """What rows share: sizes, the peak, the peers.

    Args:
        toy: tiny sizes, and peers on whatever PyTorch has.
        peers: one of `KINDS`.
        trace: whether steps are recorded too.
        wait: returns when a row, whose programs are compiled, may be measured.
    """

    def __init__(
        self,
        toy: bool,
        peers: str = "compile",
        trace: bool = False,
        wait: Callable[[], None] = lambda: None,
    ):
        self.toy, self._trace, self._wait = toy, trace, wait
        self.peers = Peers(peers, toy)
        self._most_steps, self._repeats = (1, 2) if toy else (_MOST_STEPS, 10)
        kind = jax.devices()[0].device_kind
        self._stated = next((rate for name, rate in STATED.items() if name in kind), None)

    @cached_property
    def _peak(self) -> float:
        with timed("the rate of a bfloat16 product"):
            peak = self._matmul_rate(256 if self.toy else 8192)
        stated = "none is known" if self._stated is None else f"{self._stated / 1e12:.0f}"
        kind = jax.devices()[0].device_kind
        say(f"{kind}: {peak / 1e12:.3g} TFLOP/s measured, stated: {stated}")
        return peak

    def _matmul_rate(self, size: int) -> float:
        a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
        multiply = jax.jit(lambda x, y: x @ y)
        return 2 * size**3 / min(self._seconds({"": lambda: multiply(a, a)})[""])

    def _reading(self, begin: Begin, steps: int) -> Begin:
        """Some steps in a row; the host prepares one while the device is at another."""

        def reading() -> None:
            for _ in range(steps):
                done = begin()
            jax.block_until_ready(done)
            self.peers.wait()

        return reading

    def _seconds(self, works: dict[str, Begin]) -> dict[str, list[float]]:
        """Seconds of a step of each, taken in turns."""
        steps = []
        for begin in works.values():
            once = self._reading(begin, 1)
            once()
            began = time.perf_counter()
            once()
            took = time.perf_counter() - began
            steps.append(max(1, min(self._most_steps, math.ceil(_READING_S / took))))
        readings = [self._reading(begin, n) for begin, n in zip(works.values(), steps)]
        seconds = in_turns(readings, repeats=self._repeats, warm_up=1)
        return {k: [s / n for s in r] for k, n, r in zip(works, steps, seconds)}

    def row(
        self, name: str, work: str, ours: Begin, peers: dict[str, Begin], flops: float, **facts: Any
    ) -> Row:
        """Times all in turns; peers alone and first, if there is no room for both.

        Args:
            name: of the row.
            work: what is done, in words.
            ours: our step.
            peers: as `Peers.of` makes them.
            flops: of a step.
            facts: further numbers.
        """
        self._wait()
        described = machine()
        needed = facts.get("temporary_gb", 0.0) * 1e9 + self.peers.peak_bytes
        turns = [{"ours": ours} | peers]
        if peers and needed > self.peers.free_bytes():
            say("no room for both: PyTorch is timed first, then ours")
            turns = [peers, {"ours": ours}]
        seconds: dict[str, list[float]] = {}
        with timed("warming up and measuring"):
            for works in turns:
                seconds |= self._seconds(works)
                if len(turns) > 1:
                    self.peers.free()
        medians = {k: statistics.median(s) for k, s in seconds.items()}
        rate = flops / medians["ours"]
        facts |= {
            "gflop": flops / 1e9,
            "tflop_per_s": rate / 1e12,
            "mfu": None if self._stated is None else rate / self._stated,
            "roofline": rate / self._peak,
            "eager_s": medians.get("eager"),
            "eager_ratio": medians["eager"] / medians["ours"] if "eager" in medians else None,
        }
        if self._trace:
            facts["trace"] = traced(lambda steps: [ours() for _ in range(steps)][-1])
        return Row(
            name=f"{name}_bf16",
            work=work,
            peer="torch.compile" if "compiled" in medians else "",
            ours_s=medians["ours"],
            peer_s=medians.get("compiled"),
            spread=max((max(s) - min(s)) / medians[k] for k, s in seconds.items()),
            goal=1.0,
            facts=facts,
            machine=described,
            versions=versions(),
        )

    def training_step(self, name: str) -> Row:
        """A training step of a claim of `training_steps`."""
        size = TRAINING[name][self.toy]
        with timed("both networks"):
            whole, peer = training_steps.CLAIMS[name][0](**size)
        peers, difference = {}, None
        with Compiling() as compiling:
            if self.peers.kind != "none":
                whole.lowered_prediction  # noqa: B018  traced here, compiled in the thread
                compiling.begin(lambda: whole.prediction)
            with timed("tracing ours"):
                began = time.perf_counter()
                ours = whole.in_dtype("bfloat16")
                lowered, flops = ours.lower(), ours.flops
                trace_s = time.perf_counter() - began
            compiled = compiling.begin(lowered.compile)
            if self.peers.kind != "none":
                peer = peer.to(self.peers.device)
                theirs = peer.outputs()
                peers = self.peers.of(peer.module, lambda network: self._adam_step(network, peer))
            with timed("waiting for ours to compile"):
                ours.program, first_s = compiled()
        if peers:
            with timed("the outputs in float32"):
                difference = training_steps.check_equal(whole.outputs(), theirs, name)
        del whole
        return self.row(
            name,
            f"training step, B {size['batch_size']}, T {size['frames']}, bfloat16",
            ours.begin,
            peers,
            flops,
            difference_of_float32_outputs=difference,
            trace_s=trace_s,
            first_compile_s=first_s,
            cached_compile_s=cached_seconds(lambda: ours.lower().compile()),
            **memory_facts(ours.program),
        )

    def _adam_step(self, network: Any, peer: training_steps.Peer) -> Begin:
        fused = self.peers.device.type == "cuda"
        adam = torch.optim.Adam(peer.module.parameters(), lr=1e-4, fused=fused)

        def begin() -> None:
            adam.zero_grad(set_to_none=True)
            with self.peers.autocast():
                out = network(*peer.inputs)
            peer.loss(out.float(), peer.targets).backward()
            adam.step()

        return begin

    def encoder(self, name: str) -> Row:
        """The forward pass of an encoder of `encoders`."""
        size, count = ENCODING[name][self.toy]
        make, work, _ = encoders.CLAIMS[name]
        with timed("both encoders"), tempfile.TemporaryDirectory() as folder:
            model, theirs, here = make(size, count)
            model.save_pretrained(Path(folder) / "model")
            loaded = load_encoder(Path(folder) / "model", dtype=jnp.bfloat16)
        variables, x = jax.device_put(({"params": loaded.params}, here))
        peers = {}
        with Compiling() as compiling:
            began = time.perf_counter()
            traced = jax.jit(loaded.module.apply).trace(variables, *x)
            lowered = traced.lower()
            trace_s = time.perf_counter() - began
            compiled = compiling.begin(lowered.compile)
            if self.peers.kind != "none":
                model = model.eval().to(self.peers.device)
                theirs = {k: v.to(self.peers.device) for k, v in theirs.items()}

                def forward(network: Any) -> Begin:
                    def begin() -> None:
                        with torch.inference_mode(), self.peers.autocast():
                            network(**theirs)

                    return begin

                peers = self.peers.of(model, forward)
            with timed("waiting for ours to compile"):
                program, first_s = compiled()
        return self.row(
            name,
            f"forward, {count} x {work.format(size)}, bfloat16",
            lambda: program(variables, *x),
            peers,
            product_flops(traced.jaxpr),
            trace_s=trace_s,
            first_compile_s=first_s,
            cached_compile_s=cached_seconds(lambda: traced.lower().compile()),
            **memory_facts(program),
        )

    def epoch(self, name: str) -> Row:
        """Seconds of an epoch with the features on the device, without the first one."""
        recipe, widths, batch_sizes = EPOCHS[name]
        videos, frames = (1, 700) if self.toy else (VIDEOS, FRAMES)
        config = recipes.load(recipe)
        config.data.update(resident=True, modalities=tuple(widths))
        config.data.window.update(kind="sliding", length=300, hop=200, step_s=None)
        config.train.batch_size = batch_sizes[self.toy]
        # Processors take bfloat16 convolutions many times slower.
        config.model.dtype = "float32" if self.toy else "bfloat16"
        if self.toy and recipe == "maven":
            config.model.beit_layers = 1
        epoch = Epoch(Experiment(config, RandomStore(videos, frames, widths)))
        with timed("compiling the training step"):
            began = time.perf_counter()
            program = epoch.compile()
            first_s = time.perf_counter() - began
        cached_s = cached_seconds(epoch.compile)
        self._wait()
        seconds: list[float] = []
        while len(seconds) < 2 or (not self.toy and len(seconds) < 4 and sum(seconds) < 20):
            seconds.append(epoch.seconds())
            say(f"epoch {len(seconds)}: {seconds[-1]:.3g} s, {epoch.steps} steps")
        later, described = seconds[1:], machine()
        facts: dict[str, Any] = {
            "steps": epoch.steps,
            "limit_s": 5.0,
            "first_epoch_s": seconds[0],
            "load_s": epoch.load_s,
            "frames_loaded_per_s": videos * frames / epoch.load_s,
            "first_compile_s": first_s,  # tracing included, here and in the next
            "cached_compile_s": cached_s,
            **memory_facts(program),
        }
        if self._trace:
            facts["trace"] = traced(epoch.take)
        return Row(
            name=name,
            work=f"epoch of {videos * frames:,} frames, {epoch.windows:,} windows, "
            f"B {config.train.batch_size}, {config.model.dtype}",
            peer="",
            ours_s=statistics.median(later),
            peer_s=None,
            spread=(max(later) - min(later)) / statistics.median(later),
            facts=facts,
            machine=described,
            versions=versions(),
        )


def measure(names: Sequence[str], bench: Bench, end: float) -> Iterator[Row | None]:
    """The rows in order, None for one that failed; memory of one is free before the next.

    Args:
        names: of the rows.
        bench: what they share.
        end: time (of `time.monotonic`) at which all must be over.
    """
    for name in names:
        remaining_s = end - time.monotonic()
        if remaining_s < EXPECTED_S[name]:
            say(f"== {name}: no time, {remaining_s:.0f} s of about {EXPECTED_S[name]} are left")
            continue
        kinds = ((TRAINING, bench.training_step), (ENCODING, bench.encoder), (EPOCHS, bench.epoch))
        say(f"== {name}")
        try:
            with timed(name):
                row = next(row for kind, row in kinds if name in kind)(name)
        except Exception:  # of any of three libraries; the other rows are measured
            traceback.print_exc()
            row = None
        yield row
        del row
        gc.collect()
        bench.peers.free()


def parser() -> Parser:
    p = Parser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    p.add_argument(
        "--row",
        action="append",
        metavar="NAME",
        help=f"this row; may be given several times (default: {', '.join(NAMES)})",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    p.add_argument(
        "--peers",
        choices=KINDS,
        default="compile",
        help="what ours is compared with: nothing, PyTorch eager, or torch.compile too (default)",
    )
    p.add_argument(
        "--trace", action="store_true", help="record a few steps of ours too: its longest kernels"
    )
    p.add_argument(
        "--budget",
        type=positive,
        default=math.inf,
        metavar="SECONDS",
        help="leave out rows that would take longer than what is left of it",
    )
    p.add_argument(
        "--at-once",
        action="store_true",
        help="compile all rows at once, each in a process of its own, then measure in turns; "
        "the device needs memory for all of them",
    )
    p.add_argument("--turns", type=Path, help=argparse.SUPPRESS)
    p.add_argument("--toy", action="store_true", help="tiny sizes, to see that it works")
    return p


def measure_at_once(
    args: argparse.Namespace, names: Sequence[str], end: float, file: OutputFile | None
) -> int:
    """`main` by a process for each row."""
    command = ["benchmarks.gpu", "--peers", args.peers]
    command += ["--trace"] * args.trace + ["--toy"] * args.toy
    rows: list[dict[str, Any]] = []
    whole = True
    for _, measured in measure_in_turns(command, names, end, _MEASURING_S):
        rows += measured
        whole = whole and bool(measured)
        if file is not None:
            write_rows(file, rows)
    return 0 if whole else 1


def main(argv: list[str]) -> int:
    """Measures, prints, writes."""
    end = time.monotonic()
    args: argparse.Namespace = parser().parse_args(argv)
    end += args.budget
    names = args.row or NAMES
    for name in names:
        if name not in NAMES:
            raise UserError(f"--row: no {name!r}{did_you_mean(name, NAMES)}")
    if not args.toy and jax.devices()[0].platform != "gpu":
        raise UserError("JAX sees no GPU here; --toy runs anywhere")
    # Earlier results are in the repository's history.
    file = args.json and OutputFile(args.json, "benchmarks.gpu", "its rows", force=True)
    if args.at_once:
        return measure_at_once(args, names, end, file)
    rows: list[dict[str, Any]] = []
    whole = True

    def wait() -> None:
        if args.turns is not None:
            wait_for_turn(args.turns, *names)

    with empty_cache():
        for row in measure(names, Bench(args.toy, args.peers, args.trace, wait), end):
            if row is None:
                whole = False
                continue
            rows.append(row.to_json())
            numbers = {k: v for k, v in row.facts.items() if isinstance(v, int | float)}
            shown = ", ".join(f"{k} {v:.3g}" for k, v in numbers.items())
            compiled = "" if row.ratio is None else f", {row.ratio:.2f} x torch.compile's speed"
            say(f"{row.name}: {row.work}: {row.ours_s:.3g} s{compiled}; {shown}")
            if file is not None:  # what is done stays, whatever happens to the rest
                write_rows(file, rows)
    return 0 if whole else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
