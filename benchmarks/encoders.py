"""Frozen encoders' forward passes, ours against transformers in PyTorch, in turns.

    maven-jax bench swin hubert roberta

Base sizes with random weights, saved by transformers and loaded as users load published ones.
Outputs are compared before anything is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers

from benchmarks.side_by_side import Row, compare, matmul_peak, product_flops
from maven_jax.convert.huggingface import load_encoder

_TOLERANCE = 1e-3


def _swin(frames: int, batch: int = 1) -> tuple[Any, dict[str, Any], Any]:
    config = transformers.SwinConfig(
        embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=7
    )
    pixels = np.random.default_rng(0).normal(size=(batch * frames, 224, 224, 3)).astype(np.float32)
    theirs = {"pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())}
    return transformers.SwinModel(config), theirs, (pixels,)


def _hubert(seconds: int, batch: int = 1) -> tuple[Any, dict[str, Any], Any]:
    wave = np.random.default_rng(0).normal(size=(batch, 16_000 * seconds)).astype(np.float32)
    model = transformers.HubertModel(transformers.HubertConfig())
    return model, {"input_values": torch.from_numpy(wave)}, (wave,)


def _roberta(tokens: int, batch: int = 8) -> tuple[Any, dict[str, Any], Any]:
    config = transformers.RobertaConfig(
        vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1
    )
    ids = np.random.default_rng(0).integers(5, 50_000, size=(batch, tokens))
    model = transformers.RobertaModel(config, add_pooling_layer=False)
    return (
        model,
        {"input_ids": torch.from_numpy(ids)},
        (ids.astype(np.int32), np.ones(ids.shape, bool)),
    )


# name -> (model and inputs of a size, what the size counts, sizes, the claim's first)
CLAIMS: dict[str, tuple[Any, str, tuple[int, ...]]] = {
    "swin": (_swin, "Swin-B, {} frames", (32, 8, 16)),
    "hubert": (_hubert, "HuBERT base, {} s", (10, 5, 20)),
    "roberta": (_roberta, "RoBERTa base, 8 texts of {} tokens", (128, 64, 256)),
}


def at_size(name: str, size: int, repeats: int, goal: float | None) -> Row:
    """One row; `name` may end in `/` and the size."""
    make, work, _ = CLAIMS[name.split("/")[0]]
    peak = matmul_peak()
    torch.manual_seed(0)
    model, theirs, here = make(size)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        encoder = load_encoder(Path(folder) / "model")
    variables, x = jax.device_put(({"params": encoder.params}, here))
    traced = jax.jit(encoder.module.apply).trace(variables, *x)
    compiled = traced.lower().compile()

    def ours() -> Any:
        return jax.block_until_ready(compiled(variables, *x))

    def peer() -> Any:
        with torch.inference_mode():
            return model(**theirs)

    output = ours()
    hidden = np.asarray(getattr(output, "last_hidden_state", output))
    difference = float(np.abs(hidden - peer().last_hidden_state.numpy()).max())
    assert difference < _TOLERANCE, f"{name}: outputs differ by {difference:.1e}"
    row = compare(
        name,
        f"forward, {work.format(size)}, float32",
        ours,
        peer,
        repeats=repeats,
        peer_name="transformers, PyTorch eager",
        goal=goal,
        size={work.split()[-1]: size},
        difference_of_outputs=difference,
    )
    flops = product_flops(traced.jaxpr)
    rate = flops / row.ours_s
    row.facts.update(gflop=flops / 1e9, roofline=rate / peak, peak_gflop_per_s=peak / 1e9)
    return row


def measure(name: str, repeats: int, growth: bool) -> Iterator[Row]:
    """The rows of one claim; with `growth`, those at its other sizes too."""
    sizes = CLAIMS[name][2]
    yield at_size(name, sizes[0], repeats, 1.0)
    for size in sizes[1:] if growth else ():
        yield at_size(f"{name}/{size}", size, repeats, None)
