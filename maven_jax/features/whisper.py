"""Sound of any length to features of Whisper's encoder, in windows of 30 s that overlap.

Each window is what Whisper would see of it alone: its spectrogram is floored 8 decades below its
own loudest value, and silence follows where the sound ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.errors import UserError
from maven_jax.features.device import Clock, DeviceFunction, bucket_of, buckets, pad_rows
from maven_jax.features.model_files import identity, open_encoder, read_preprocessor
from maven_jax.features.waveform import AudioEncoder, Chunks, cut
from maven_jax.media.align import overlapping
from maven_jax.media.sound import Sound

# Samples of a column of the spectrogram, and columns of a frame.
_HOP, _COLUMNS = 160, 2
_RATE_HZ = 16000


class WhisperEncoder(AudioEncoder):
    """Features of a sound of any length (kind `whisper`); attributes as of `AudioEncoder`."""

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        overlap_s: float,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
        preprocessor: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: Hugging Face folder or hub id ("owner/name@revision"), or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: windows per call, on all devices together.
            batch_buckets: number of batch sizes compiled for.
            overlap_s: part of a window shared with the next one, at most half.
            seed: of a random encoder.
            model: Hugging Face config of a random encoder.
            preprocessor: settings of a random encoder's feature extractor.
        """
        from transformers import WhisperFeatureExtractor

        loaded = open_encoder("whisper", source, dtype, seed, model)
        settings = read_preprocessor(loaded, preprocessor)
        config = loaded.module.config
        rate = settings.get("sampling_rate", _RATE_HZ)
        shape = (rate, settings.get("hop_length", _HOP), settings.get("feature_size", 80))
        if shape != (_RATE_HZ, _HOP, config.num_mel_bins):
            raise UserError(
                f"{source}: its feature extractor gives {shape[2]} bands every {shape[1]} samples "
                f"at {shape[0]} Hz; expected {config.num_mel_bins} every {_HOP} at {_RATE_HZ} Hz"
            )
        self.sample_rate_hz = _RATE_HZ
        self.step_s = _COLUMNS * _HOP / _RATE_HZ
        self._chunk = config.max_source_positions
        self._overlap = round(overlap_s / self.step_s)
        if not 0 <= 2 * self._overlap <= self._chunk:
            raise UserError(
                f"encoders.audio: overlap_s {overlap_s} exceeds half of a window of "
                f"{self._chunk * self.step_s} s"
            )
        # The filters, not the length of the window, which is the encoder's.
        self._extract = WhisperFeatureExtractor(feature_size=config.num_mel_bins)

        def hidden(params: Any, mel: jax.Array) -> jax.Array:
            out: Any = loaded.module.apply({"params": params}, mel)
            return out.astype(jnp.float32)

        self._run = DeviceFunction("audio", hidden, loaded.params)
        self._rows = buckets(batch_size, batch_buckets, self._run.device_count)
        self.dim = config.d_model
        self.spec = identity(
            loaded,
            feature="last_hidden_state",
            preprocessing={
                "sample_rate_hz": _RATE_HZ,
                "bands": config.num_mel_bins,
                "window_frames": self._chunk,
                "overlap_s": overlap_s,
            },
            dtype=dtype,
        )

    def _batches(
        self, sound: Sound, clock: Clock, until_s: float = math.inf, whole: bool = False
    ) -> Iterator[Chunks]:
        """Spectrograms of windows; `whole` would be more than Whisper takes."""
        assert not whole
        with clock("decode"):
            samples = sum(len(block) for block in sound.blocks(self.sample_rate_hz))
        hop = _HOP * _COLUMNS
        pieces = overlapping(-(-samples // hop), self._chunk, self._overlap)
        ranges = [(a * hop, min(b * hop, samples)) for a, b in pieces]
        waves = cut(sound.blocks(self.sample_rate_hz), ranges)
        rows = self._rows[-1]
        for at in range(0, len(pieces), rows):
            batch = pieces[at : at + rows]
            if batch[0][0] * self.step_s + sound.start_s > until_s + self.step_s:
                return
            with clock("decode"):
                mel = np.stack([self._mel(next(waves)) for _ in batch])
                mel = pad_rows(mel, bucket_of(len(batch), self._rows))
            yield batch, (mel,)

    def _mel(self, wave: np.ndarray) -> np.ndarray:
        """(columns, bands) float32 of one window."""
        wave = np.pad(wave, (0, self._chunk * _HOP * _COLUMNS - len(wave)))
        out = self._extract(
            wave,
            sampling_rate=_RATE_HZ,
            padding="do_not_pad",
            truncation=False,
            return_tensors="np",
        )
        return np.asarray(out["input_features"][0].T, np.float32)

    def _times(self, first: int, count: int) -> np.ndarray:
        """The extractor centres its columns, and so does the second convolution its taps."""
        return (first + np.arange(count)) * self.step_s
