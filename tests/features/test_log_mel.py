"""Spectrograms: by their definitions, from streams of any blocks, in bounded memory."""

import math

import numpy as np
import pytest

from maven_jax.errors import UserError
from maven_jax.features.device import Clock
from maven_jax.features.log_mel import MelStream, TsavMel, VggishMel
from maven_jax.features.mel import MelExamples, RawMel

KINDS = [VggishMel, TsavMel]


class Samples:
    """A sound in memory, or one made as it is read, that counts its blocks."""

    def __init__(self, samples, start_s=0.0, block=7001, repeat=1):
        self.samples, self.start_s, self.block, self.repeat = samples, start_s, block, repeat
        self.blocks_read = 0

    def blocks(self, sample_rate_hz, block_s=10.0):
        for _ in range(self.repeat):
            for at in range(0, len(self.samples), self.block):
                self.blocks_read += 1
                yield self.samples[at : at + self.block]


def voice(seconds, rate, seed=0):
    """Gliding harmonics that swell, with some noise."""
    rng = np.random.default_rng(seed)
    at = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(180 + 90 * np.sin(2.1 * at)) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.1 * (1.2 + np.sin(5 * at)) * wave + 0.003 * rng.normal(size=len(at))).astype("f4")


def read(mel, samples, start, stop, block=9973):
    blocks = (samples[at : at + block] for at in range(0, len(samples), block))
    return MelStream(mel, blocks).read(start, stop)


def test_vggish_columns_follow_audiosets_definition():
    """Written out once more: a sum over samples for every bin, a triangle for every band."""
    samples = voice(0.2, 16000)
    found = read(VggishMel(), samples, 0, 8)

    def mel(hz):
        return 1127 * math.log(1 + hz / 700)

    n = np.arange(400)
    window = np.sin(np.pi * n / 400) ** 2  # the periodic Hann window in another form
    edges = [mel(125) + i * (mel(7500) - mel(125)) / 65 for i in range(66)]
    for column in (0, 3, 7):
        piece = samples[160 * column : 160 * column + 400] * window
        magnitude = [
            math.hypot(
                float(piece @ np.cos(2 * np.pi * k * n / 512)),
                float(piece @ np.sin(2 * np.pi * k * n / 512)),
            )
            for k in range(257)
        ]
        for band in range(64):
            low, centre, high = edges[band : band + 3]
            total = 0.0
            for k in range(1, 257):
                at = mel(k * 16000 / 512)
                if low < at <= centre:
                    total += magnitude[k] * (at - low) / (centre - low)
                elif centre < at < high:
                    total += magnitude[k] * (high - at) / (high - centre)
            assert found[column, band] == pytest.approx(math.log(total + 0.01), abs=1e-5)


def test_tsav_examples_are_what_torch_makes_of_them():
    """The release's chain (spectrogram, HTK bands, decibels, limit, fixed mean) by torch.stft."""
    torch = pytest.importorskip("torch")
    samples = voice(1.2, 44100)
    mel = TsavMel()
    found = mel.finish(read(mel, samples, 0, 120)[None])[0]
    spectra = torch.stft(
        torch.from_numpy(samples), n_fft=1024, hop_length=441, win_length=882,
        window=torch.hann_window(882), center=True, pad_mode="reflect", return_complex=True,
    )  # fmt: skip
    top = 2595 * math.log10(1 + 22050 / 700)
    points = 700 * (10 ** (torch.linspace(0, top, 66) / 2595) - 1)
    hz = torch.linspace(0, 22050, 513)[:, None]
    rising = (hz - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - hz) / (points[2:] - points[1:-1])
    weights = torch.clamp(torch.minimum(rising, falling), min=0)
    decibels = 10 * torch.log10(torch.clamp(spectra.abs().square().T @ weights, min=1e-10))
    # The first column is loudest by chance nowhere: leaving the two at the borders out, where the
    # release reflects the sound, does not move the limit.
    inner = decibels[2:118]
    limited = torch.maximum(inner, decibels[:120].max() - 80)
    expected = (limited + 14.8) / 19.895
    np.testing.assert_allclose(found[2:118], expected.numpy(), atol=2e-3)
    assert found.std() > 0.3


def test_decibels_far_below_an_examples_own_maximum_are_cut_off():
    examples = np.full((2, 4, 64), -100, np.float32)
    examples[0, 1, 2], examples[1, 3, 0] = 20, -70
    found = TsavMel().finish(examples) * 19.895 - 14.8
    np.testing.assert_allclose(found.min(axis=(1, 2)), [-60, -100], atol=1e-4)
    np.testing.assert_allclose(found.max(axis=(1, 2)), [20, -70], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_the_bits_of_one_pass(kind):
    mel = kind()
    samples = voice(6.1, mel.sample_rate_hz)
    whole = read(mel, samples, -5, 620, block=len(samples))
    for block in (997, 44100):
        np.testing.assert_array_equal(read(mel, samples, -5, 620, block), whole)
    # In portions, as examples read it: forwards, with overlap, with gaps.
    blocks = (samples[at : at + 5000] for at in range(0, len(samples), 5000))
    stream = MelStream(mel, blocks)
    for start, stop in ((-5, 40), (10, 41), (10, 300), (299, 310), (500, 620)):
        np.testing.assert_array_equal(stream.read(start, stop), whole[start + 5 : stop + 5])
    assert stream.num_samples == len(samples)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 159, 700, 5000])
def test_outside_of_the_sound_is_silence(kind, count):
    mel = kind()
    samples = voice(1.0, mel.sample_rate_hz)[:count]
    around = np.concatenate([np.zeros(mel.hop * 20), samples, np.zeros(mel.hop * 20)])
    long = read(mel, around.astype(np.float32), 10, 60)
    np.testing.assert_allclose(read(mel, samples, -10, 40), long, atol=1e-3)
    assert np.ptp(read(mel, samples, 200, 300)) < 1e-4


def test_only_columns_that_are_needed_are_held():
    samples = np.zeros(16000, np.float32)
    stream = MelStream(VggishMel(), Samples(samples, repeat=600).blocks(16000))
    most = 0
    for first in range(0, 59_000, 97):
        stream.read(first, first + 96)
        most = max(most, sum(len(group) for group in stream._kept))
    assert most <= 3 * 256


@pytest.mark.parametrize(("align", "first"), [("start", 0), ("centre", -48), ("end", -95)])
def test_an_example_lies_where_it_is_said_to(align, first):
    """A click at 2 s is in column 200 of the sound, wherever that is in each example."""
    samples = np.zeros(16000 * 4, np.float32)
    samples[32000 + 200] = 0.9  # in the middle of column 200's window
    examples = MelExamples(VggishMel(), 96, align)
    times = np.array([0.5, 1.5, 1.9333, 2.0, 2.4, 2.5, 2.9, 3.5])
    heard = 0
    for frame, example in examples.of(Samples(samples, start_s=0.5), times, Clock()):
        since = round((times[frame] - 0.5) * 100)
        at = 200 - (since + first)
        loud = example.sum(1)
        if 0 <= at < 96:
            assert loud.argmax() == at
            assert loud[at] > loud.min() + 10
            heard += 1
        elif not -1 <= at <= 96:  # columns 199 and 201 see the click, too
            assert np.ptp(loud) < 1e-3
    assert heard >= 2


@pytest.mark.parametrize("align", ["start", "centre", "end"])
def test_frames_outside_of_the_sound_are_masked(align):
    raw = RawMel(columns=96, align=align)
    times = np.arange(60) / 20  # 0 … 2.95 s; sound from 0.5 to 2.0 s
    sound = Samples(voice(1.5, 16000), start_s=0.5)
    values, mask = raw.stream(sound, times, Clock()).at(times)
    expected = (times >= 0.5) & (times <= 2.0)
    np.testing.assert_array_equal(mask, expected)
    assert values.shape == (60, 96 * 64)
    assert (values[~mask] == 0).all()
    assert np.isfinite(values).all()
    for silent in (None, Samples(np.zeros(0, np.float32))):
        values, mask = raw.stream(silent, times, Clock()).at(times)
        assert values.shape == (60, 96 * 64)
        assert not mask.any()
    # Silence was heard, it is not missing.
    values, mask = raw.stream(Samples(np.zeros(16000 * 4, "f4")), times, Clock()).at(times)
    assert mask.all()
    np.testing.assert_allclose(values, math.log(0.01), atol=1e-5)


def test_features_are_read_in_any_portions_and_no_further_than_the_video():
    raw = RawMel(columns=96, align="start")
    times = np.arange(200) / 25
    samples = voice(30, 16000)
    whole, _ = raw.stream(Samples(samples), times, Clock()).at(times)
    sound = Samples(samples, block=16000)
    track = raw.stream(sound, times, Clock())
    parts, at = [], 0
    for count in (1, 70, 2, 100, 27):
        parts.append(track.at(times[at : at + count])[0])
        at += count
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert sound.blocks_read <= 8 + 6
    # A frame's example is that of its own time.
    column = read(VggishMel(), samples, 400, 496)
    np.testing.assert_array_equal(whole[100].reshape(96, 64), column)


def test_a_second_changes_only_the_frames_that_hear_it():
    samples = voice(8, 16000)
    other = samples.copy()
    other[3 * 16000 : 4 * 16000] *= 0.2
    times = np.arange(7 * 25) / 25
    raw = RawMel(columns=96, align="start")
    a, _ = raw.stream(Samples(samples), times, Clock()).at(times)
    b, _ = raw.stream(Samples(other), times, Clock()).at(times)
    changed = (a != b).any(1)
    # Columns of t … t + 0.95 s, each of which sees 25 ms.
    expected = (times + 0.95 + 0.025 > 3.0) & (times < 4.0)
    np.testing.assert_array_equal(changed, expected)


def test_an_unknown_alignment_is_named():
    with pytest.raises(UserError, match="did you mean 'centre'"):
        RawMel(columns=96, align="center")
