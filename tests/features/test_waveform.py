"""Sound to features: whole-file statistics from a stream, chunks without seams, odd files."""

import functools
import math

import numpy as np
import pytest
from transformers import Wav2Vec2FeatureExtractor

from maven_jax.encoders.hubert import HubertConfig
from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.waveform import AudioEncoder, WaveStatistics, cut
from maven_jax.media.align import AlignedStream

RATE = 16000


class Samples:
    """A sound in memory that counts how far it has been read."""

    def __init__(self, samples, start_s=0.0, block=7001):
        self.samples, self.start_s, self.block = samples, start_s, block
        self.blocks_read = 0

    def blocks(self, sample_rate_hz, block_s=10.0):
        assert sample_rate_hz == RATE
        for at in range(0, len(self.samples), self.block):
            self.blocks_read += 1
            yield self.samples[at : at + self.block]


def voice(seconds, seed=0):
    """A gliding, swelling tone with noise, and an offset that has to be normalised away."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * RATE)) / RATE
    pitch = 150 + 80 * np.sin(0.7 * at)
    wave = (1.2 + np.sin(1.3 * at)) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    return (0.1 * wave + 0.02 * rng.normal(size=len(at)) + 0.05).astype(np.float32)


# A compilation costs more than what is tested with it: small, and the same encoder shared.
MODEL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (80, 8, 8),
    "conv_stride": (20, 4, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 16,
}
PREPROCESSOR = {"sampling_rate": RATE, "do_normalize": True}


@functools.cache
def encoder(num_hidden_layers=1, chunk_s=2.0, overlap_s=0.5, batch_size=2, batch_buckets=1):
    return AudioEncoder(
        source="random",
        dtype="float32",
        seed=0,
        model=MODEL | {"num_hidden_layers": num_hidden_layers},
        preprocessor=PREPROCESSOR,
        chunk_s=chunk_s,
        overlap_s=overlap_s,
        batch_size=batch_size,
        batch_buckets=batch_buckets,
    )


def run(audio, sound, **kwargs):
    parts = list(audio.encode(sound, Clock(), **kwargs))
    if not parts:
        return np.zeros(0), np.zeros((0, audio.dim))
    return np.concatenate([t for t, _ in parts]), np.concatenate([f for _, f in parts])


@pytest.mark.parametrize(("kernel", "stride"), [(10, 5), (4, 4), (3, 7)])
@pytest.mark.parametrize("block", [1, 61, 100_000])
def test_filter_statistics_of_a_stream_equal_those_of_the_filtered_file(kernel, stride, block):
    rng = np.random.default_rng(0)
    samples = voice(0.2) if block > 1 else voice(0.02)
    filters, bias = rng.normal(size=(kernel, 6)), rng.normal(size=6)
    statistics = WaveStatistics(kernel, stride)
    for at in range(0, len(samples), block):
        statistics.add(samples[at : at + block])
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    normal = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
    np.testing.assert_allclose(statistics.normalise(samples), normal, atol=1e-5)
    for normalised, signal in ((False, samples), (True, normal.astype(np.float64))):
        windows = np.lib.stride_tricks.sliding_window_view(signal, kernel)[::stride]
        out = windows @ filters + bias
        mean, variance = statistics.filtered(filters, bias, normalised)
        np.testing.assert_allclose(mean, out.mean(0), atol=1e-5)
        np.testing.assert_allclose(variance, out.var(0), rtol=1e-4)


def test_cut_gives_overlapping_ranges_of_a_stream():
    samples = np.arange(100, dtype=np.float32)
    ranges = [(0, 30), (20, 50), (40, 70), (70, 100)]
    for block in (1, 9, 100):
        pieces = list(cut(Samples(samples, block=block).blocks(RATE), ranges))
        for piece, (a, b) in zip(pieces, ranges, strict=True):
            np.testing.assert_array_equal(piece, samples[a:b])
    with pytest.raises(UserError, match="ends after 100"):
        list(cut(iter([samples]), [(0, 101)]))


def test_chunks_equal_one_pass_where_the_context_is_whole():
    """With no attention, a frame sees the convolutions and 8 frames to each side, no more.

    So all frames further than that from the ends of the chunks must be those of one long pass, to
    rounding: the normalisation and both norms' statistics then are the whole file's.
    """
    audio = encoder(num_hidden_layers=0)
    sound = Samples(voice(9.3))
    times, features = run(audio, sound)
    whole_times, whole = audio.encode_whole(sound)
    np.testing.assert_allclose(times, whole_times)
    far = np.ones(len(times), bool)
    for start in range(0, len(times), 75):
        for border in (start, start + 100):
            far[max(border - 9, 0) : border + 9] &= border in (0,)
    assert far.sum() > 200
    np.testing.assert_allclose(features[far], whole[far], atol=1e-4)
    assert np.abs(features - whole).max() < 2 * np.abs(whole).max()


def test_difference_of_chunks_to_one_pass_is_small(capsys):
    """Attention over 5 s instead of 20 s; cross-faded over 1.25 s.

    Layers with random weights attend almost evenly, which makes context matter most: a chunk's
    mean differs from the file's by what the file itself varies. The bound is a fifth of a
    feature's own spread, root mean square; a hard seam or a chunk normalised by itself is beyond.
    """
    audio = encoder(chunk_s=5.0, overlap_s=1.25)
    sound = Samples(voice(20.0))
    _, features = run(audio, sound)
    _, whole = audio.encode_whole(sound)
    spread = whole.std(0)
    relative = np.sqrt(np.square((features - whole) / spread).mean())
    step = np.abs(np.diff(features, axis=0)).max(1)
    whole_step = np.abs(np.diff(whole, axis=0)).max(1)
    with capsys.disabled():
        print(f"\nchunks against one pass of 20 s: rms difference {relative:.4f} of the spread")
    assert relative < 0.2
    # No seams: neighbouring frames differ nowhere more than they do in one pass.
    assert step.max() < 1.1 * whole_step.max()


def test_loudness_of_the_rest_of_the_file_reaches_every_chunk():
    """The statistics are the file's: a loud second half changes the first half's features."""
    audio = encoder()
    quiet = voice(6.0)
    loud = quiet.copy()
    loud[4 * RATE :] *= 5
    _, a = run(audio, Samples(quiet))
    _, b = run(audio, Samples(loud))
    assert np.abs(a[:50] - b[:50]).max() > 0.05


@pytest.mark.parametrize("count", [0, 1, 779])
def test_sound_shorter_than_one_frame_gives_none(count):
    audio = encoder()
    assert audio.config.receptive_field_samples == 780
    times, features = run(audio, Samples(voice(1.0)[:count]))
    assert len(times) == 0
    assert features.shape == (0, 32)


@pytest.mark.parametrize("count", [780, 1100, 1419, 1420])
def test_frames_and_times_of_short_sounds(count):
    times, features = run(encoder(), Samples(voice(1.0)[:count], start_s=2.5))
    assert len(times) == len(features) == (count - 780) // 320 + 1
    np.testing.assert_allclose(times[0], 2.5 + 389.5 / RATE)
    np.testing.assert_allclose(np.diff(times), 0.02)


@pytest.mark.parametrize("fps", [25, 60])
@pytest.mark.parametrize("seconds", [1.0, 1.009, 1.019])
def test_the_first_and_the_last_picture_of_a_sound_have_features_of_hubert(fps, seconds):
    """Centres lie from 12.5 ms on, to at most 32.5 ms before the end of the sound."""
    config, times_s = HubertConfig(), np.arange(round(seconds * fps)) / fps
    count = config.num_frames(int(seconds * RATE))
    block = config.frame_times_s(count, float(RATE)), np.ones((count, 1), np.float32)
    assert AlignedStream([block], dim=1, step_s=0.02).at(times_s)[1].all()


def test_silence_is_finite():
    times, features = run(encoder(), Samples(np.zeros(3 * RATE, np.float32)))
    assert len(times) > 140
    assert np.isfinite(features).all()


def test_padding_and_batches_do_not_matter():
    """A sound of one chunk, alone in a short bucket or beside others in a long one."""
    sound = Samples(voice(4.6))
    _, one = run(encoder(batch_size=1, batch_buckets=4), sound)
    _, two = run(encoder(batch_size=4), sound)
    np.testing.assert_allclose(one, two, atol=2e-5)


def test_reading_stops_behind_the_end_of_the_video():
    audio = encoder()
    sound = Samples(voice(30.0), block=RATE)
    times, _ = run(audio, sound, until_s=4.0)
    assert 4.0 < times[-1] < 7.5
    assert sound.blocks_read < 30 + 10  # one whole pass for the statistics, then the beginning


def test_the_sound_is_read_two_batches_ahead_and_no_further():
    audio = encoder()
    sound = Samples(voice(30.0), block=RATE)
    stream = audio.encode(sound, Clock())
    next(stream)
    assert sound.blocks_read <= 30 + 6 + 2 * 3
    times = [t for t, _ in stream]
    assert math.isclose(times[-1][-1], 30.0, abs_tol=0.06)


def test_too_much_overlap_is_refused():
    with pytest.raises(UserError, match="overlap_s"):
        encoder(chunk_s=2.0, overlap_s=1.5)
