"""How far HuBERT features of overlapping chunks are from those of one pass over the whole sound.

    python -m benchmarks.audio_chunks --sound speech.wav --source facebook/hubert-base-ls960
    python -m benchmarks.audio_chunks --sound speech.wav

Without `--source`: an untrained encoder of base size, its attention and feed-forward kernels scaled
by `--scale` (.5 brings them near the standard deviation of .02 that training starts from). One pass
needs memory that grows with the square of the sound's length; a minute or two is enough.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

from maven_jax import recipes
from maven_jax.features.device import Clock, DeviceFunction
from maven_jax.features.model_files import RANDOM
from maven_jax.features.waveform import AudioEncoder
from maven_jax.media.sound import open_audio


class Beginning:
    """The first seconds of a sound, in memory."""

    start_s = 0.0

    def __init__(self, path: Path, seconds: float) -> None:
        self._samples = np.zeros(0, np.float32)
        for block in open_audio(path).blocks(16000):
            self._samples = np.concatenate([self._samples, block])[: round(seconds * 16000)]
            if len(self._samples) == round(seconds * 16000):
                break

    def blocks(self, sample_rate_hz: int, block_s: float = 10.0):
        """Blocks of `block_s`; the rate is 16 kHz."""
        size = round(block_s * sample_rate_hz)
        for at in range(0, len(self._samples), size):
            yield self._samples[at : at + size]


def scale_kernels(run: DeviceFunction, scale: float) -> None:
    """Multiplies the kernels of the transformer's layers."""

    def scaled(path: tuple, value: jax.Array) -> jax.Array:
        name = jax.tree_util.keystr(path)
        return value * scale if "encoder" in name and "kernel" in name else value

    run._params = jax.tree_util.tree_map_with_path(scaled, run._params)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sound", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--source", default=RANDOM)
    parser.add_argument("--scale", type=float, default=0.5)
    args = parser.parse_args()
    section = recipes.load("base", group="encoders").audio.to_dict()
    del section["kind"]
    section |= {"source": args.source, "batch_size": 1, "batch_buckets": 1}
    if args.source == RANDOM:
        # An empty config has the sizes of HuBERT base.
        section |= {"seed": 0, "model": {}, "preprocessor": {"do_normalize": True}}
    encoder = AudioEncoder(**section)
    if args.source == RANDOM:
        scale_kernels(encoder._run, args.scale)
    sound = Beginning(args.sound, args.seconds)
    chunks = np.concatenate([f for _, f in encoder.encode(sound, Clock())])
    _, whole = encoder.encode_whole(sound)
    difference = (chunks - whole) / whole.std(0)
    steps = [np.abs(np.diff(x, axis=0)).mean(1).max() for x in (chunks, whole)]
    print(f"{args.source}, {len(whole) * encoder.step_s:.0f} s in chunks of {section['chunk_s']} s")
    print(
        f"difference, root mean square: {np.sqrt(np.square(difference).mean()):.3f} of the spread"
    )
    print(f"largest step between frames: {steps[0] / steps[1]:.3f} of that of one pass")
    return 0


if __name__ == "__main__":
    sys.exit(main())
