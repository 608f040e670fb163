"""What one GPU does: training steps and encoders in bfloat16, and an epoch of Aff-Wild2's size.

    python -m benchmarks.gpu [--only NAME,…] [--json FILE]
    JAX_PLATFORMS=cpu python -m benchmarks.gpu --toy        the same at toy size, anywhere

Ours, PyTorch eager and `torch.compile` take turns in one process, all in bfloat16 (PyTorch by
autocast), on the same batch. `roofline` (MFU) is our FLOPs over the time and over the rate of a
large bfloat16 matrix product measured in the same process. The epoch draws 1.7 M frames of
random features onto the device and trains the recipe's windows of them (`data.resident`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# JAX and PyTorch share the memory: neither takes it all at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils._pytree import tree_map

from benchmarks import encoders, training_steps
from benchmarks.side_by_side import Row, in_turns, machine, product_flops, versions
from maven_jax import assembly, feeding, recipes
from maven_jax.convert.huggingface import load_encoder
from maven_jax.data.moments import Moments
from maven_jax.data.pipeline import WindowSource, to_batch
from maven_jax.data.store import ModalitySpec, Store, VideoEntry, mask_field
from maven_jax.errors import UserError, did_you_mean
from maven_jax.progress import say
from maven_jax.stages import StageBuilder

# Aff-Wild2's training split: videos and frames of each (1.7 M together).
VIDEOS, FRAMES = 350, 4857
TRAINING = {  # name -> batch size, frames; the same for toys
    "maven_released": ((64, 300), (2, 20)),
    "maven_paper": ((64, 300), (1, 20)),
    "rjcma": ((64, 300), (1, 300)),
    "rjca": ((256, 16), (2, 16)),
}
ENCODING = {"swin": (128, 1), "hubert": (30, 1), "roberta": (512, 8)}
# name -> recipe, widths, windows of a batch, and those of a toy
EPOCHS = {
    "rjcma_epoch": ("rjcma", dict(visual=512, audio=128, text=768), (64, 2)),
    "maven_epoch": ("maven", dict(visual=1024, audio=768, text=768), (64, 2)),
}
NAMES = (*TRAINING, *ENCODING, *EPOCHS)


def matmul_rate(size: int) -> float:
    """FLOP/s of a bfloat16 matrix product, the best of some."""
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
    multiply = jax.jit(lambda x, y: x @ y)
    seconds = in_turns([lambda: multiply(a, a).block_until_ready()], repeats=10, inner=4)[0]
    return 2 * size**3 / min(seconds)


def finished() -> None:
    """Returns when PyTorch's work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compare(
    name: str, work: str, works: Mapping[str, Callable[[], Any]], flops: float, peak: float
) -> Row:
    """The row of `ours` beside `eager` and `compiled`."""
    seconds = dict(zip(works, in_turns(list(works.values()), repeats=10, warm_up=3)))
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    return Row(
        name=f"{name}_bf16",
        work=work,
        peer="torch.compile, bfloat16",
        ours_s=medians["ours"],
        peer_s=medians["compiled"],
        spread=max((max(s) - min(s)) / medians[k] for k, s in seconds.items()),
        goal=1.0,
        facts={
            "eager_s": medians["eager"],
            "eager_ratio": medians["eager"] / medians["ours"],
            "gflop": flops / 1e9,
            "roofline": flops / medians["ours"] / peak,
            "peak_gflop_per_s": peak / 1e9,
        },
        machine=machine(),
        versions=versions(),
    )


def training_step(name: str, batch_size: int, frames: int, peak: float) -> Row:
    """A training step of a claim of `training_steps`."""
    ours, peer, _ = training_steps.CLAIMS[name][0](batch_size, frames)
    config = ours.config
    config.model.dtype = "bfloat16"
    ours = training_steps.Ours(config, ours.batch, None)

    def put(x: Any) -> Any:
        return x.to(device()) if isinstance(x, torch.Tensor) else x

    module = peer.module.to(device())
    inputs, targets = tree_map(put, peer.inputs), peer.targets.to(device())
    works: dict[str, Callable[[], Any]] = {"ours": ours}
    for how, network in (("eager", module), ("compiled", torch.compile(module))):
        adam = torch.optim.Adam(module.parameters(), lr=1e-4, fused=torch.cuda.is_available())

        def step(network: Any = network, adam: Any = adam) -> None:
            adam.zero_grad(set_to_none=True)
            with torch.autocast(device().type, torch.bfloat16):
                out = network(*inputs)
            peer.loss(out.float(), targets).backward()
            adam.step()
            finished()

        works[how] = step
    work = f"training step, B {batch_size}, T {frames}, bfloat16"
    return compare(name, work, works, ours.flops, peak)


def encoder(name: str, size: int, peak: float) -> Row:
    """The forward pass of an encoder of `encoders`."""
    make, work, _ = encoders.CLAIMS[name]
    model, there, here = make(size)
    model = model.eval().to(device())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        loaded = load_encoder(Path(folder) / "model", dtype=jnp.bfloat16)
    variables, x = jax.device_put(({"params": loaded.params}, here))
    traced = jax.jit(loaded.module.apply).trace(variables, *x)
    program = traced.lower().compile()
    there = {k: v.to(device()) for k, v in there.items()}
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: jax.block_until_ready(program(variables, *x))
    }
    for how, network in (("eager", model), ("compiled", torch.compile(model))):

        def forward(network: Any = network) -> None:
            with torch.inference_mode(), torch.autocast(device().type, torch.bfloat16):
                network(**there)
            finished()

        works[how] = forward
    return compare(
        name, f"forward, {work.format(size)}, bfloat16", works, product_flops(traced.jaxpr), peak
    )


class RandomStore(Store):
    """A store that is nowhere: features are the same few random frames again and again."""

    def __init__(self, videos: int, frames: int, widths: Mapping[str, int]):
        self.path, self.chunk_frames, self.fingerprint = Path("random"), 100, "random"
        self.modalities = {m: ModalitySpec(m, c, {"encoder": "random"}) for m, c in widths.items()}
        self.splits, self.dropped, self.provenance = ("train",), (), {}
        self.statistics = {
            m: Moments(videos * frames, np.zeros(c), np.ones(c))
            for m, c in (widths | {"targets": 2}).items()
        }
        entries = [
            VideoEntry(
                video=f"{i:03d}",
                split="train",
                num_frames=frames,
                first_record=i * -(-frames // self.chunk_frames),
                fps=30.0,
                duration_s=frames / 30,
                num_annotated=frames,
                stem=f"{i:03d}",
                observed=dict.fromkeys(widths, frames),
                nonfinite=dict.fromkeys(widths, 0),
                segments=((0, frames),),
            )
            for i in range(videos)
        ]
        self._videos = {"train": tuple(entries)}
        rng = np.random.default_rng(0)
        self._frames = {m: rng.normal(size=(997, c)).astype(np.float16) for m, c in widths.items()}
        self._frames["targets"] = rng.uniform(-1, 1, (997, 2)).astype(np.float32)
        self._frames |= {mask_field(m): np.ones(997, bool) for m in widths}
        self._frames["target_mask"] = np.ones(997, bool)
        self._frames["segment_id"] = np.zeros(997, np.int32)

    def read_into(
        self,
        spans: Sequence[tuple[VideoEntry, slice]],
        places: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        for (entry, span), out in zip(spans, places):
            numbers = np.arange(span.start, span.stop, span.step)
            rows = (numbers + 31 * entry.first_record) % 997
            for field, array in out.items():
                array[:] = numbers / 30 if field == "time_s" else self._frames[field][rows]


def epoch(name: str, batch_size: int, videos: int, frames: int) -> Row:
    """Seconds of an epoch with the features on the device, the second one."""
    recipe, widths, _ = EPOCHS[name]
    config = recipes.load(recipe)
    config.data.resident = True
    config.train.batch_size = batch_size
    config.model.dtype = "bfloat16"
    config.data.modalities = tuple(widths)
    store = RandomStore(videos, frames, widths)
    mesh, rules = assembly.build_mesh(config)
    windows = assembly.split_windows(store, config, "train", train=True)
    source = WindowSource(store, windows, tuple(widths), dict(config.data.single_vector))
    steps = math.ceil(len(windows) / batch_size)
    feed = feeding.make_feed(config, store, windows, source, mesh)
    builder = StageBuilder(
        config,
        assembly.build_model(config, store),
        to_batch(source.read([0])),
        assembly.feature_statistics(store, config),
        mesh,
        rules,
        steps_per_epoch=steps,
        total_steps=1000 * steps,
    )
    stage = builder.build(0, 0)
    state = builder.fresh(stage)
    with jax.set_mesh(mesh):
        feed.compile(stage.step, state)
    seconds = []
    for _ in range(4):
        began, done = time.perf_counter(), 0
        metrics = None
        while done < steps:
            taken, count = feed.take(steps - done)
            state, metrics = feed.run(state, taken)
            done += count
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - began)
    later = seconds[1:]
    return Row(
        name=name,
        work=f"epoch of {videos * frames:,} frames, {len(windows):,} windows, B {batch_size}",
        peer="",
        ours_s=statistics.median(later),
        peer_s=None,
        spread=(max(later) - min(later)) / statistics.median(later),
        facts={"steps": steps, "limit_s": 5.0},
        machine=machine(),
        versions=versions(),
    )


def measure(names: Sequence[str], toy: bool) -> Iterator[Row]:
    """The rows in order."""
    peak = matmul_rate(256 if toy else 8192)
    for name in names:
        if name in TRAINING:
            yield training_step(name, *TRAINING[name][toy], peak)
        elif name in ENCODING:
            yield encoder(name, ENCODING[name][toy], peak)
        else:
            size = (1, 700) if toy else (VIDEOS, FRAMES)
            yield epoch(name, EPOCHS[name][2][toy], *size)


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to see that it works")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else NAMES
    for name in names:
        if name not in NAMES:
            raise UserError(f"--only: no {name!r}{did_you_mean(name, NAMES)}")
    if not args.toy and jax.devices()[0].platform != "gpu":
        raise UserError("there is no GPU here; --toy runs anywhere")
    rows = []
    for row in measure(names, args.toy):
        rows.append(row.to_json())
        say(f"{row.name}: {row.work}: ours {row.ours_s:.3g} s, {row.facts}")
        if args.json is not None:
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
