"""How long each encoder takes for all of Aff-Wild2 on this machine.

    python -m benchmarks.encode_hours [--only swin,hubert] [--json FILE]

Full-size encoders with random weights run on one batch; the least of several readings is taken to
the 2,993,081 frames of Aff-Wild2's valence-arousal set, 27.7 hours at 30 frames a second. On a
processor the processor time of all cores is counted and divided by their number, so that other work
on the machine does not count; on an accelerator wall time is. Decoding is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.systems import machine
from maven_jax.convert.huggingface import random_encoder

FRAMES, FPS = 2_993_081, 30.0
SOUND_S = FRAMES / FPS
_READINGS = 3
_LARGE = dict(
    hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
)
_SWIN = dict(embed_dim=128, depths=[2, 2, 18, 2], num_heads=[4, 8, 16, 32], window_size=7)
# Name -> kind, config, shape of one batch, and what it is: so many frames, or seconds of sound.
ENCODERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], float, str]] = {
    "swin (base)": ("swin", _SWIN, (16, 224, 224, 3), 16, "frames"),
    "vit (base)": ("vit", {}, (16, 224, 224, 3), 16, "frames"),
    "clip (base, 32)": ("clip_vision_model", {"patch_size": 32}, (16, 224, 224, 3), 16, "frames"),
    "dinov2 (base, 224)": (
        "dinov2",
        {"patch_size": 14, "image_size": 224},
        (8, 224, 224, 3),
        8,
        "frames",
    ),
    "efficientnet (B0)": ("efficientnet", {}, (16, 224, 224, 3), 16, "frames"),
    "iresnet50 (40 pixels, as RJCMA)": ("iresnet50", {}, (64, 40, 40, 3), 64, "frames"),
    "videomae (base), a clip per frame": ("videomae", {}, (1, 16, 224, 224, 3), 1, "frames"),
    "hubert (base)": ("hubert", {}, (1, 320_000), 20, "seconds"),
    "wav2vec2 (large)": (
        "wav2vec2",
        {**_LARGE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
        (1, 320_000),
        20,
        "seconds",
    ),
    "wavlm (base)": ("wavlm", {}, (1, 320_000), 20, "seconds"),
    "whisper (base)": (
        "whisper",
        {
            "d_model": 512,
            "encoder_layers": 6,
            "encoder_attention_heads": 8,
            "encoder_ffn_dim": 2048,
        },
        (1, 3000, 80),
        30,
        "seconds",
    ),
}


def seconds_of(kind: str, config: dict[str, Any], shape: tuple[int, ...]) -> float:
    """Seconds of one batch on the whole machine, the least of some."""
    encoder = random_encoder(kind, config, seed=0)
    variables = {"params": encoder.params, **encoder.state}
    batch = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    run = jax.jit(lambda v, x: jax.tree.leaves(encoder.module.apply(v, x))[0].sum())
    variables, x = jax.device_put((variables, jnp.asarray(batch)))
    run(variables, x).block_until_ready()
    readings = []
    for _ in range(_READINGS):
        wall, used = time.perf_counter(), time.process_time()
        run(variables, x).block_until_ready()
        if jax.default_backend() == "cpu":
            readings.append((time.process_time() - used) / (os.cpu_count() or 1))
        else:
            readings.append(time.perf_counter() - wall)
    return min(readings)


def main() -> None:
    """Prints the table, writes the JSON."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--only", default="", help="kinds, separated by commas")
    p.add_argument("--json", type=Path, help="file for the rows")
    args = p.parse_args()
    only = {k for k in args.only.split(",") if k}
    print(machine())
    rows = []
    for name, (kind, config, shape, amount, unit) in ENCODERS.items():
        if only and kind not in only:
            continue
        rate = amount / seconds_of(kind, config, shape)
        hours = (FRAMES if unit == "frames" else SOUND_S) / rate / 3600
        print(f"{name:36s}{rate:9.1f} {unit} a second{hours:9.1f} hours", flush=True)
        rows.append({"name": name, "rate": rate, "unit": unit, "hours": hours})
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
