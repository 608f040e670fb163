"""Sound of any length to features of HuBERT, wav2vec 2.0 or WavLM, in overlapping chunks.

It is streamed twice. The first pass gathers what depends on the whole file: the mean and variance
by which the Hugging Face feature extractor normalises, and the statistics of the first
convolution's group norm. The second pass encodes chunks on one common grid of frames, so their
convolutions equal those of one long pass. Only the attention and the positional convolution see
less context; neighbouring chunks are cross-faded over their overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maven_jax.convert.huggingface import LoadedEncoder
from maven_jax.encoders.head import moving_mean
from maven_jax.errors import UserError
from maven_jax.features.device import Clock, DeviceFunction, bucket_of, buckets
from maven_jax.features.model_files import EMBEDDING, identity, open_encoder, read_preprocessor
from maven_jax.features.prefetch import Prefetch
from maven_jax.media.align import AlignedStream, crossfade, overlapping
from maven_jax.media.sound import Sound

# The variance floor of `transformers.Wav2Vec2FeatureExtractor`.
NORMALISE_EPSILON = 1e-7
# Pieces of the sound, (first frame, frame behind the last) each, and the encoder's inputs for them.
Chunks = tuple[Sequence[tuple[int, int]], tuple[np.ndarray, ...]]


class WaveStatistics:
    """Sums over a whole waveform, gathered block by block in float64.

    Mean and variance of a linear filter's output follow from the mean and the second moments of the
    samples under it. So one pass over the raw samples is enough, at a cost that does not depend on
    the number of filters.

    Attributes:
        count: samples seen.
    """

    def __init__(self, kernel: int, stride: int) -> None:
        self._kernel, self._stride = kernel, stride
        self.count = 0
        self._sum = self._square = 0.0
        self._patches = 0
        self._patch_sum = np.zeros(kernel)
        self._patch_square = np.zeros((kernel, kernel))
        self._rest = np.zeros(0, np.float32)
        self._skip = 0

    def add(self, block: np.ndarray) -> None:
        """Adds the next samples (n,)."""
        samples = block.astype(np.float64)
        self.count += len(samples)
        self._sum += float(samples.sum())
        self._square += float(samples @ samples)
        rest = np.concatenate([self._rest, block])
        skip = min(self._skip, len(rest))
        rest, self._skip = rest[skip:], self._skip - skip
        n = max((len(rest) - self._kernel) // self._stride + 1, 0)
        if n:
            windows = np.lib.stride_tricks.sliding_window_view(rest, self._kernel)
            patches = windows[:: self._stride][:n].astype(np.float64)  # (n, kernel)
            self._patches += n
            self._patch_sum += patches.sum(0)
            self._patch_square += patches.T @ patches
        used = n * self._stride
        self._skip += max(used - len(rest), 0)  # only if the stride exceeds the kernel
        self._rest = rest[used:]

    @property
    def mean(self) -> float:
        return self._sum / max(self.count, 1)

    @property
    def variance(self) -> float:
        return max(self._square / max(self.count, 1) - self.mean**2, 0.0)

    def normalise(self, block: np.ndarray) -> np.ndarray:
        """Scales to zero mean and unit variance over the file, as the feature extractor does."""
        scale = 1 / math.sqrt(self.variance + NORMALISE_EPSILON)
        return ((block - np.float32(self.mean)) * np.float32(scale)).astype(np.float32)

    def filtered(
        self, kernels: np.ndarray, bias: np.ndarray | None, normalised: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and (population) variance over time of every filter's output.

        Args:
            kernels: (kernel, c) filters.
            bias: (c,) or None.
            normalised: the filters see `normalise`d samples instead of the raw ones.

        Returns:
            Mean and variance, (c,) float32.
        """
        patches = max(self._patches, 1)
        mean = self._patch_sum / patches
        covariance = self._patch_square / patches - np.outer(mean, mean)
        if normalised:
            scale = 1 / math.sqrt(self.variance + NORMALISE_EPSILON)
            mean, covariance = (mean - self.mean) * scale, covariance * scale**2
        filters = kernels.astype(np.float64)
        out_mean = mean @ filters + (0.0 if bias is None else bias.astype(np.float64))
        out_variance = np.einsum("kc,kl,lc->c", filters, covariance, filters)
        return out_mean.astype(np.float32), np.maximum(out_variance, 0.0).astype(np.float32)


def cut(blocks: Iterator[np.ndarray], ranges: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    """The samples `start … stop - 1` of every range, from a stream; starts must not decrease.

    Raises:
        UserError: the stream ends before the last range does.
    """
    pending, first = np.zeros(0, np.float32), 0
    for start, stop in ranges:
        parts = [pending]
        end = first + len(pending)
        while end < stop:
            block = next(blocks, None)
            if block is None:
                raise UserError(f"sound ends after {end} samples, it had {stop} in the first pass")
            parts.append(block)
            end += len(block)
        pending = np.concatenate(parts)[start - first :]
        first = start
        yield pending[: stop - start]


class AudioEncoder:
    """Features of a sound of any length (kinds `hubert`, `wav2vec2`, `wavlm`).

    Attributes:
        dim: channels of a feature.
        step_s: distance of two features, seconds.
        spec: identity of the features, for the store.
        stored_dtype: of the features in the store.
    """

    stored_dtype = "float16"

    def __init__(
        self,
        *,
        source: str,
        dtype: str,
        batch_size: int,
        batch_buckets: int,
        chunk_s: float,
        overlap_s: float,
        kind: str = "hubert",
        output: str = EMBEDDING,
        pool_s: float | None = None,
        seed: int | None = None,
        model: Mapping[str, Any] | None = None,
        preprocessor: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads (or, for `source="random"`, draws) the encoder.

        Args:
            source: Hugging Face folder or hub id ("owner/name@revision"), or "random".
            dtype: "float32" or "bfloat16", of the computation; features are float32.
            batch_size: chunks per call, on all devices together.
            batch_buckets: number of batch sizes, and of lengths, compiled for.
            chunk_s: length of a chunk in seconds.
            overlap_s: part of it shared with the next one, at most half.
            kind: of the encoder.
            output: "embedding", or "logits" for what its trained head says.
            pool_s: of logits, the seconds around a frame whose mean the head takes; it was
                trained on means of whole utterances.
            seed: of a random encoder.
            model: Hugging Face config of a random encoder.
            preprocessor: settings of a random encoder's feature extractor.
        """
        loaded = open_encoder(kind, source, dtype, seed, model, output)
        settings = read_preprocessor(loaded, preprocessor)
        self.sample_rate_hz = int(settings.get("sampling_rate", 16000))
        self._normalised = bool(settings.get("do_normalize", True))
        self.config = config = loaded.module.config
        self.step_s = config.hop_samples / self.sample_rate_hz
        self._chunk = round(chunk_s / self.step_s)
        self._overlap = round(overlap_s / self.step_s)
        if not 0 <= 2 * self._overlap <= self._chunk:
            raise UserError(f"encoders.audio: overlap_s {overlap_s} exceeds half of {chunk_s}")
        self._first_kernel = _first_kernel(loaded) if config.has_first_norm_statistics else None

        width = 0
        if loaded.head is not None:
            if pool_s is None or not 0 < pool_s <= chunk_s:
                raise UserError(
                    f"encoders.audio: output=logits needs pool_s, above 0 to chunk_s {chunk_s}, "
                    f"not {pool_s}"
                )
            width = 2 * round(pool_s / self.step_s / 2) + 1

        def hidden(params: Any, samples: jax.Array, mask: jax.Array, *norm: jax.Array) -> jax.Array:
            encoder, head = params
            out: Any = loaded.module.apply({"params": encoder}, samples, mask, norm or None)
            if loaded.head is not None:
                # Frames that saw padding do not count.
                seen = config.frame_mask(mask)
                return loaded.head[0](head, moving_mean(out, seen, width))
            return out.astype(jnp.float32)

        params = (loaded.params, loaded.head and loaded.head[1])
        self._run = DeviceFunction("audio", hidden, params)
        self._rows = buckets(batch_size, batch_buckets, self._run.device_count)
        self._lengths = buckets(self._chunk, batch_buckets)
        self.dim = config.hidden_size
        feature, pooling = "last_hidden_state", {}
        if loaded.head is not None:
            self.dim = len(loaded.head[1][-1][1])
            feature, pooling = loaded.head[0].feature, {"pool_s": pool_s}
        self.spec = identity(
            loaded,
            feature=feature,
            preprocessing=pooling
            | {
                "sample_rate_hz": self.sample_rate_hz,
                "zero_mean_unit_variance_over_file": self._normalised,
                "chunk_s": chunk_s,
                "overlap_s": overlap_s,
                "first_norm_over_file": self._first_kernel is not None,
            },
            dtype=dtype,
        )

    def stream(self, sound: Sound | None, times_s: np.ndarray, clock: Clock) -> AlignedStream:
        """Features to be read at frames of the times (t,), masked where there is no sound."""
        blocks = iter(())
        if sound is not None:
            blocks = self.encode(sound, clock, until_s=float(times_s[-1]))
        return AlignedStream(blocks, dim=self.dim, step_s=self.step_s)

    def measure(self, sound: Sound) -> WaveStatistics:
        """The first pass: statistics of the whole file."""
        statistics = WaveStatistics(self.config.conv_kernel[0], self.config.conv_stride[0])
        for block in sound.blocks(self.sample_rate_hz):
            statistics.add(block)
        return statistics

    def encode(
        self, sound: Sound, clock: Clock, until_s: float = math.inf
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features of a whole sound, streamed.

        Args:
            sound: read twice from its start.
            clock: takes the time spent.
            until_s: features of later times are not needed.

        Yields:
            Times (n,) in seconds on the clock of the video's frames, features (n, dim) float32;
            consecutive. Nothing if the sound is shorter than one receptive field.
        """
        start_s = sound.start_s
        with Prefetch(self._batches(sound, clock, until_s), 1, "sound") as batches:
            for first, features in crossfade(self._encoded(batches, clock)):
                times = self._times(first, len(features)) + start_s
                yield times, features
                if times[-1] > until_s + self.step_s:
                    return

    def encode_whole(self, sound: Sound) -> tuple[np.ndarray, np.ndarray]:
        """Times and features of a single pass over everything, which `encode` approximates."""
        ((_, features),) = self._encoded(self._batches(sound, Clock(), whole=True), Clock())
        return self._times(0, len(features)) + sound.start_s, features

    def _batches(
        self, sound: Sound, clock: Clock, until_s: float = math.inf, whole: bool = False
    ) -> Iterator[Chunks]:
        """The device's inputs, made on the host.

        Args:
            sound: read twice from its start.
            clock: takes the time spent.
            until_s: features of later times are not needed.
            whole: everything is one chunk.
        """
        with clock("decode"):
            statistics = self.measure(sound)
        frames = self.config.num_frames(statistics.count)
        chunk, overlap, lengths = self._chunk, self._overlap, self._lengths
        if whole:
            chunk, overlap, lengths = frames, 0, (frames,)
        pieces = overlapping(frames, chunk, overlap)
        hop = self.config.hop_samples
        ranges = [(a * hop, a * hop + self._samples(b - a)) for a, b in pieces]
        waves = cut(sound.blocks(self.sample_rate_hz), ranges)
        norm = self._first_norm(statistics)
        rows = self._rows[-1]
        for at in range(0, len(pieces), rows):
            batch = pieces[at : at + rows]
            if batch[0][0] * self.step_s + sound.start_s > until_s + self.step_s:
                return
            longest = max(b - a for a, b in batch)
            with clock("decode"):
                size = self._samples(bucket_of(longest, lengths))
                samples = np.zeros((bucket_of(len(batch), self._rows), size), np.float32)
                mask = np.zeros(samples.shape, bool)
                for row in range(len(batch)):
                    wave = next(waves)
                    if self._normalised:
                        wave = statistics.normalise(wave)
                    samples[row, : len(wave)] = wave
                    mask[row, : len(wave)] = True
                # The statistics are the file's, the same for every row.
                norms = [np.tile(values, (len(samples), 1)) for values in norm]
            yield batch, (samples, mask, *norms)

    def _encoded(self, batches: Iterable[Chunks], clock: Clock) -> Iterator[tuple[int, np.ndarray]]:
        """Features of the frames `start … stop - 1` of every piece, as (start, (n, dim))."""
        for pieces, inputs in batches:
            features = np.asarray(self._run(*inputs, clock=clock))
            for row, (a, b) in enumerate(pieces):
                yield a, features[row, : b - a]

    def _first_norm(self, statistics: WaveStatistics) -> tuple[np.ndarray, ...]:
        """Mean and variance per channel of the first convolution over the whole file."""
        if self._first_kernel is None:
            return ()
        return statistics.filtered(*self._first_kernel, normalised=self._normalised)

    def _samples(self, frames: int) -> int:
        """How many samples so many consecutive frames see."""
        return (frames - 1) * self.config.hop_samples + self.config.receptive_field_samples

    def _times(self, first: int, count: int) -> np.ndarray:
        """Centres of `count` frames from `first` on, seconds behind the first sample."""
        return self.config.frame_times_s(count, float(self.sample_rate_hz)) + first * self.step_s


def _first_kernel(loaded: LoadedEncoder) -> tuple[np.ndarray, np.ndarray | None]:
    """Kernel (kernel, c) and bias (c,), if any, of HuBERT's first convolution."""
    conv = loaded.params["conv_0"]
    bias = np.asarray(conv["bias"]) if "bias" in conv else None
    return np.asarray(conv["kernel"])[:, 0], bias
