"""What one GPU does: training steps and encoders in bfloat16, and an epoch of Aff-Wild2's size.

    python -m benchmarks.gpu [--row NAME …] [--json FILE]
    JAX_PLATFORMS=cpu python -m benchmarks.gpu --toy        the same at toy size, anywhere

Ours, PyTorch eager and `torch.compile` take turns in one process on the same batch, all in bfloat16
(PyTorch by autocast), after their outputs were compared in float32. A reading is several steps in a
row and the wait for the last. `mfu` is the FLOPs of our matrix products and convolutions over the
time and over what the maker states for the chip, `roofline` the same over a large bfloat16 product
measured in the same process. The epoch draws 1.7 M frames of random features onto the device and
trains the recipe's windows of them (`data.resident`). Each row is printed and written when it is
there; without PyTorch's CUDA build the peers' columns stay empty.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# JAX and PyTorch share the memory: neither takes it all at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import torch
from torch.utils._pytree import tree_map

from benchmarks import encoders, training_steps
from benchmarks.random_store import RandomStore
from benchmarks.side_by_side import Row, in_turns, machine, product_flops, versions
from maven_jax import recipes
from maven_jax.command_line import Parser
from maven_jax.convert.huggingface import load_encoder
from maven_jax.errors import UserError, did_you_mean
from maven_jax.experiment import Experiment
from maven_jax.progress import say, timed
from maven_jax.runtime.compilation import keep_compiled
from maven_jax.training.feed import make_feed
from maven_jax.training.stages import StageBuilder

# Dense bfloat16 FLOP/s that NVIDIA states, by a part of JAX's name of the device.
STATED = {"H200": 989e12, "H100": 989e12, "A100": 312e12}
# Aff-Wild2's training split: videos and frames of each (1.7 M together).
VIDEOS, FRAMES = 350, 4857
# name -> what the maker of the claim takes; then the same for toys
TRAINING: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "maven_released": (dict(batch_size=64, frames=300), dict(batch_size=2, frames=20)),
    "maven_paper": (dict(batch_size=64, frames=300), dict(batch_size=1, frames=20, layers=1)),
    "rjcma": (dict(batch_size=64, frames=300), dict(batch_size=1, frames=300)),
    "rjca": (dict(batch_size=256, frames=16), dict(batch_size=1, frames=16)),
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
NAMES = (*TRAINING, *ENCODING, *EPOCHS)
# Begins a step or a forward pass, and returns what is there when it is done.
Begin = Callable[[], Any]


class Bench:
    """What rows share: sizes, the peak, the peers' device.

    Args:
        toy: tiny sizes, and peers on whatever PyTorch has.
    """

    def __init__(self, toy: bool):
        self.toy = toy
        cuda = torch.cuda.is_available()
        self.peers = toy or cuda
        self.torch_device = torch.device("cuda" if cuda else "cpu")
        self._in_a_row, self._repeats = (1, 2) if toy else (10, 10)
        if toy:
            torch.set_num_threads(1)  # two that wait for each other are slow on a busy machine
        if not self.peers:
            say("PyTorch sees no GPU (its CUDA build is missing?): the peers' columns stay empty")
        with timed("the rate of a bfloat16 product"):
            self._peak = self._matmul_rate(256 if toy else 8192)
        kind = jax.devices()[0].device_kind
        self._stated = next((rate for name, rate in STATED.items() if name in kind), None)
        stated = "none is known" if self._stated is None else f"{self._stated / 1e12:.0f}"
        say(f"{kind}: {self._peak / 1e12:.3g} TFLOP/s measured, stated: {stated}")

    def _matmul_rate(self, size: int) -> float:
        a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
        multiply = jax.jit(lambda x, y: x @ y)
        seconds = in_turns([self._reading(lambda: multiply(a, a))], repeats=self._repeats)[0]
        return 2 * size**3 * self._in_a_row / min(seconds)

    def _autocast(self) -> torch.autocast:
        """bfloat16 on a GPU; processors take many times as long with it."""
        on = self.torch_device.type == "cuda"
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=on)

    def _reading(self, begin: Begin) -> Begin:
        """Some steps in a row; the host prepares one while the device is at another."""

        def reading() -> None:
            for _ in range(self._in_a_row):
                done = begin()
            jax.block_until_ready(done)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return reading

    def peers_of(self, module: torch.nn.Module, step: Callable[[Any], Begin]) -> dict[str, Begin]:
        """PyTorch eager and `torch.compile`, as far as they are to be had here.

        Args:
            module: already on the peers' device.
            step: what makes a step of it, or of the compiled module.
        """
        if not self.peers:
            return {}
        works = {"eager": step(module)}
        try:
            with timed("torch.compile"):
                # A toy leaves out the code generator: minutes on a processor, and not the GPU's.
                network = torch.compile(module, backend="eager" if self.toy else "inductor")
                compiled = step(network)
                compiled()
        except Exception as error:  # whatever its many parts raise, ours and eager are measured
            say(f"torch.compile failed ({type(error).__name__}): its column stays empty")
        else:
            works["compiled"] = compiled
        return works

    def row(
        self, name: str, work: str, ours: Begin, peers: dict[str, Begin], flops: float, **facts: Any
    ) -> Row:
        """Times all in turns."""
        with timed("warming up and measuring"):
            described, works = machine(), {"ours": ours} | peers
            readings = in_turns(
                [self._reading(begin) for begin in works.values()], repeats=self._repeats, warm_up=1
            )
        seconds = {k: [s / self._in_a_row for s in r] for k, r in zip(works, readings)}
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
        with timed("both networks, their outputs in float32"):
            ours, peer, difference = training_steps.CLAIMS[name][0](**size)
        config = ours.config
        config.model.dtype = "bfloat16"
        ours = training_steps.Ours(config, ours.batch, None)
        with timed("compiling ours"):
            jax.block_until_ready(ours.begin())
        place = self.torch_device

        def put(x: Any) -> Any:
            return x.to(place) if isinstance(x, torch.Tensor) else x

        module = peer.module.to(place)
        inputs, targets = tree_map(put, peer.inputs), peer.targets.to(place)

        def step(network: Any) -> Begin:
            adam = torch.optim.Adam(module.parameters(), lr=1e-4, fused=place.type == "cuda")

            def begin() -> None:
                adam.zero_grad(set_to_none=True)
                with self._autocast():
                    out = network(*inputs)
                peer.loss(out.float(), targets).backward()
                adam.step()

            return begin

        peers = self.peers_of(module, step)
        work = f"training step, B {size['batch_size']}, T {size['frames']}, bfloat16"
        return self.row(
            name, work, ours.begin, peers, ours.flops, difference_of_float32_outputs=difference
        )

    def encoder(self, name: str) -> Row:
        """The forward pass of an encoder of `encoders`."""
        size, count = ENCODING[name][self.toy]
        make, work, _ = encoders.CLAIMS[name]
        with timed("both encoders"), tempfile.TemporaryDirectory() as folder:
            model, theirs, here = make(size, count)
            model.save_pretrained(Path(folder) / "model")
            loaded = load_encoder(Path(folder) / "model", dtype=jnp.bfloat16)
        variables, x = jax.device_put(({"params": loaded.params}, here))
        with timed("compiling ours"):
            traced = jax.jit(loaded.module.apply).trace(variables, *x)
            program = traced.lower().compile()
        peers = {}
        if self.peers:
            model = model.eval().to(self.torch_device)
            theirs = {k: v.to(self.torch_device) for k, v in theirs.items()}

            def forward(network: Any) -> Begin:
                def begin() -> None:
                    with torch.inference_mode(), self._autocast():
                        network(**theirs)

                return begin

            peers = self.peers_of(model, forward)
        work = f"forward, {count} x {work.format(size)}, bfloat16"
        flops = product_flops(traced.jaxpr)
        return self.row(name, work, lambda: program(variables, *x), peers, flops)

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
        seconds = []
        for number in range(2 if self.toy else 4):
            seconds.append(epoch.seconds())
            say(f"epoch {number + 1}: {seconds[-1]:.3g} s, {epoch.steps} steps")
        later, described = seconds[1:], machine()
        return Row(
            name=name,
            work=f"epoch of {videos * frames:,} frames, {epoch.windows:,} windows, "
            f"B {config.train.batch_size}, {config.model.dtype}",
            peer="",
            ours_s=statistics.median(later),
            peer_s=None,
            spread=(max(later) - min(later)) / statistics.median(later),
            facts={"steps": epoch.steps, "limit_s": 5.0, "first_epoch_s": seconds[0]},
            machine=described,
            versions=versions(),
        )


class Epoch:
    """A recipe trained as `maven_jax.train` does it, without the run's files."""

    def __init__(self, experiment: Experiment):
        windows = experiment.windows("train", train=True)
        self.windows = len(windows)
        self.steps = math.ceil(len(windows) / experiment.config.train.batch_size)
        self._feed = make_feed(experiment, windows, experiment.source(windows))
        builder = StageBuilder(
            experiment, steps_per_epoch=self.steps, total_steps=1000 * self.steps
        )
        stage = builder.build(0, 0)
        self._state: Any = builder.fresh(stage)
        with timed("compiling the training step"), jax.set_mesh(experiment.mesh):
            self._feed.compile(stage.step, self._state)

    def seconds(self) -> float:
        """Trains one epoch."""
        began, done = time.perf_counter(), 0
        while done < self.steps:
            taken, count = self._feed.take(self.steps - done)
            self._state, metrics = self._feed.run(self._state, taken)
            done += count
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - began


def measure(names: Sequence[str], toy: bool) -> Iterator[Row]:
    """The rows in order; memory of one is free before the next."""
    bench = Bench(toy)
    for name in names:
        kinds = ((TRAINING, bench.training_step), (ENCODING, bench.encoder), (EPOCHS, bench.epoch))
        say(f"== {name}")
        yield next(row for kind, row in kinds if name in kind)(name)
        gc.collect()
        with contextlib.suppress(AttributeError):  # absent from builds without CUDA
            torch.cuda.empty_cache()


def parser() -> Parser:
    p = Parser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    p.add_argument(
        "--row",
        action="append",
        metavar="NAME",
        help=f"this row; may be given several times (default: {', '.join(NAMES)})",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    p.add_argument("--toy", action="store_true", help="tiny sizes, to see that it works")
    return p


def main(argv: list[str]) -> int:
    """Measures, prints, writes."""
    args: argparse.Namespace = parser().parse_args(argv)
    names = args.row or NAMES
    for name in names:
        if name not in NAMES:
            raise UserError(f"--row: no {name!r}{did_you_mean(name, NAMES)}")
    if not args.toy and jax.devices()[0].platform != "gpu":
        raise UserError("JAX sees no GPU here; --toy runs anywhere")
    keep_compiled()
    rows: list[dict[str, Any]] = []
    for row in measure(names, args.toy):
        rows.append(row.to_json())
        numbers = {k: v for k, v in row.facts.items() if v is not None}
        shown = ", ".join(f"{k} {v:.3g}" for k, v in numbers.items())
        compiled = "" if row.ratio is None else f", {row.ratio:.2f} x torch.compile's speed"
        say(f"{row.name}: {row.work}: {row.ours_s:.3g} s{compiled}; {shown}")
        if args.json is not None:  # what is done stays, whatever happens to the rest
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
