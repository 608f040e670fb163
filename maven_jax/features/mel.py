"""Sound to one vector per frame, made of about a second of log-mel spectrogram at each frame.

The spectrogram of a sound is computed once, in a stream. Every frame takes the example at its time
(`align`), and examples go through the network in batches.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.errors import UserError, did_you_mean
from maven_jax.features.device import Clock, DeviceFunction, buckets
from maven_jax.features.log_mel import Mel, MelStream, TsavMel, VggishMel
from maven_jax.features.model_files import identity, open_encoder, plain_identity
from maven_jax.features.per_frame import Batch, FrameStream, in_batches, on_frames, run_ahead
from maven_jax.features.prefetch import Prefetch
from maven_jax.media.align import EPSILON_S
from maven_jax.media.sound import Sound

MAX_BLOCK = 512
# The first column of an example of n columns, counted from the one at the frame's time.
_FIRST: Mapping[str, Callable[[int], int]] = {
    "start": lambda n: 0,
    "centre": lambda n: -(n // 2),
    "end": lambda n: 1 - n,
}


class MelExamples:
    """Cuts the examples of frames out of a sound."""

    def __init__(self, mel: Mel, columns: int, align: str) -> None:
        """Sets what an example is.

        Args:
            mel: the kind of spectrogram.
            columns: of an example.
            align: what of the example lies at the frame's time: its "start", "centre" or "end".

        Raises:
            UserError: `align` is none of these.
        """
        if align not in _FIRST:
            raise UserError(f"encoders.audio: align {align!r}{did_you_mean(align, list(_FIRST))}")
        self.mel, self.columns = mel, columns
        self._first = _FIRST[align](columns)
        self.settings = {
            "sample_rate_hz": mel.sample_rate_hz,
            "log_mel": type(mel).__name__,
            "columns": columns,
            "align": align,
        }

    def of(
        self, sound: Sound, times_s: np.ndarray, clock: Clock
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The examples of those frames at increasing `times_s` (t,) that lie within the sound.

        An example that reaches beyond the sound holds silence there.

        Args:
            sound: read once, no further than necessary.
            times_s: of all frames.
            clock: takes the time spent, as "decode".

        Yields:
            (frame, (columns, bands) float32).
        """
        mel = self.mel
        stream = MelStream(mel, sound.blocks(mel.sample_rate_hz))
        for frame, time_s in enumerate(times_s):
            since_s = float(time_s) - sound.start_s
            if since_s < -EPSILON_S:
                continue
            at = round(since_s * mel.sample_rate_hz / mel.hop)
            with clock("decode"):
                # Includes the column at the frame's own time: reading it shows whether the sound
                # goes on.
                first = at + self._first
                behind = max(first + self.columns, at + 1)
                example = stream.read(first, behind)[: self.columns]
            if stream.num_samples is not None:
                # One column more, because containers round lengths.
                end_s = (stream.num_samples + mel.hop) / mel.sample_rate_hz
                if stream.num_samples == 0 or since_s > end_s:
                    return
            yield frame, example


class RawMel:
    """The examples themselves, for encoders that are trained (kind `log_mel`): VGGish's.

    Attributes:
        dim: columns * 64, column after column.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    stored_dtype = "float16"

    def __init__(self, *, columns: int, align: str) -> None:
        """Takes the settings of `MelExamples`."""
        self._examples = MelExamples(VggishMel(), columns, align)
        self.dim = columns * self._examples.mel.bands
        settings = self._examples.settings
        self.spec = _with_librosa(plain_identity("log_mel", "log-mel (column, band)", settings))

    def stream(self, sound: Sound | None, times_s: np.ndarray, clock: Clock) -> FrameStream:
        """The examples (t, dim) at frames of the times (t,), masked where there is no sound."""
        rows = () if sound is None else self._examples.of(sound, times_s, clock)
        batches = in_batches(((i, example.reshape(-1)) for i, example in rows), 64)
        return FrameStream(on_frames(batches, len(times_s), self.dim, MAX_BLOCK))


class MelEncoder:
    """Features of examples by a network; subclasses say which.

    Attributes:
        dim: channels of a feature.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    kind: str
    mel: type[Mel]
    stored_dtype = "float16"

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        columns: int,
        align: str,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: folder made by `maven-jax convert`, or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: examples per call, on all devices together.
            batch_buckets: number of batch sizes compiled for (`device.buckets`).
            columns: of an example, 10 ms each.
            align: where the frame lies in its example: at its "start", "centre" or "end".
            seed: of a random encoder.
            model: config of a random encoder.
        """
        self._examples = MelExamples(self.mel(), columns, align)
        loaded = open_encoder(self.kind, source, dtype, seed, model)
        as_input = self._as_input

        def vectors(variables: Any, examples: jax.Array) -> jax.Array:
            return loaded.module.apply(variables, as_input(examples)).astype(jnp.float32)

        self._run = DeviceFunction("audio", vectors, loaded.variables)
        self._sizes = buckets(batch_size, batch_buckets, self._run.device_count)
        example = jax.ShapeDtypeStruct((1, columns, self.mel.bands), jnp.float32)
        self.dim = int(jax.eval_shape(vectors, loaded.variables, example).shape[-1])
        settings = self._examples.settings
        self.spec = _with_librosa(
            identity(loaded, feature="embedding", preprocessing=settings, dtype=dtype)
        )

    def _as_input(self, examples: jax.Array) -> jax.Array:
        """(n, columns, bands) as the network takes them."""
        return examples

    def stream(self, sound: Sound | None, times_s: np.ndarray, clock: Clock) -> FrameStream:
        """Features (t, dim) at frames of the times (t,), masked where there is no sound."""
        features = iter(()) if sound is None else self._encoded(sound, times_s, clock)
        return FrameStream(on_frames(features, len(times_s), self.dim, MAX_BLOCK))

    def _encoded(self, sound: Sound, times_s: np.ndarray, clock: Clock) -> Iterator[Batch]:
        with Prefetch(self._batches(sound, times_s, clock), 2, "sound") as batches:
            yield from run_ahead(self._run, self._sizes, batches, clock)

    def _batches(self, sound: Sound, times_s: np.ndarray, clock: Clock) -> Iterator[Batch]:
        rows = self._examples.of(sound, times_s, clock)
        for frames, examples in in_batches(rows, self._sizes[-1]):
            with clock("decode"):
                finished = self._examples.mel.finish(examples)
            yield frames, finished


class VggishEncoder(MelEncoder):
    """VGGish vectors (kind `vggish`), the audio of RJCMA."""

    kind = "vggish"
    mel = VggishMel


class TsavAudioEncoder(MelEncoder):
    """ResNet-18 vectors of TSAV's spectrograms (kind `tsav_resnet18`), the audio of RJCA."""

    kind = "audio_resnet18"
    mel = TsavMel

    def _as_input(self, examples: jax.Array) -> jax.Array:
        return examples.swapaxes(1, 2)  # (n, bands, columns)


def _with_librosa(spec: dict[str, Any]) -> dict[str, Any]:
    versions = spec["versions"] | {"librosa": importlib.metadata.version("librosa")}
    return spec | {"versions": versions}
