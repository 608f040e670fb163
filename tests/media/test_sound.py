"""Sound by the container's timestamps, streamed at any rate, on files made here."""

from __future__ import annotations

import io
import tracemalloc
import wave
from fractions import Fraction

import av
import av.stream
import librosa
import numpy as np
import pytest
import soundfile

from maven_jax.media.frame_times import probe
from maven_jax.media.problems import InputError
from maven_jax.media.sound import open_audio
from tests.support.corpora import tone, write_video, write_wav


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_samples(tmp_path, subtype):
    path = tmp_path / "a.wav"
    stereo = np.stack([tone(0.5, 16000), 0.5 * tone(0.5, 16000, 300.0)], axis=1)
    soundfile.write(path, stereo, 16000, subtype=subtype)
    source = open_audio(path)
    (found,) = source.blocks(16000)
    assert found.dtype == np.float32
    tolerance = 1 / 100 if subtype == "PCM_U8" else 1e-4
    np.testing.assert_allclose(found, stereo.mean(axis=1), atol=tolerance)
    assert (source.start_s, source.duration_s) == (0.0, pytest.approx(0.5))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100])
def test_resampling_in_blocks_equals_one_pass(tmp_path, rate):
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).normal(0, 0.1, round(3.21 * rate) + 1).astype(np.float32)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    source = open_audio(path)
    blocks = list(source.blocks(16000, 0.5))
    found = np.concatenate(blocks)
    assert len(found) == int(len(samples) * 16000 / rate + 0.5)
    assert {len(block) for block in blocks[:-1]} == {8000}
    assert 0 < len(blocks[-1]) <= 8000
    expected = librosa.resample(samples, orig_sr=rate, target_sr=16000, res_type="soxr_hq")
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)
    np.testing.assert_array_equal(np.concatenate(list(source.blocks(16000, 7))), found)


def test_sound_of_a_video_keeps_its_place(tmp_path):
    """AAC's encoder delay is skipped, and sound that begins late says so."""
    path = tmp_path / "a.mp4"
    write_video(path, frames=30, fps=30, sound_s=1.0)
    source = open_audio(path)
    found = np.concatenate(list(source.blocks(16000)))
    assert source.start_s == 0.0
    correlation = np.correlate(found[:8100], tone(0.5, 16000), "valid")
    # The tone repeats every 36 samples: within half of that, sample 0 fits best.
    assert int(np.argmax(correlation[:18])) == 0
    write_video(path, frames=60, fps=30, sound_s=1.0, sound_at_s=0.75)
    late = open_audio(path)
    delay_s = 1024 / 16000  # without an edit at 0 the encoder's delay is kept, as silence
    assert late.start_s == pytest.approx(0.75 - delay_s, abs=1e-3)
    info = probe(path)
    assert info.audio_start_s == pytest.approx(late.start_s)
    assert info.audio_end_s == pytest.approx(late.start_s + late.duration_s)


def test_gaps_in_the_sound_are_silence(tmp_path):
    path = tmp_path / "a.mkv"
    samples = tone(1.0, 16000)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in range(0, 16000, 1000):
            block = (samples[None, start : start + 1000] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = start + (4000 if start >= 8000 else 0)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    source = open_audio(path)
    found = np.concatenate(list(source.blocks(16000)))
    assert len(found) == 20_000
    np.testing.assert_array_equal(found[8000:12_000], 0)
    np.testing.assert_allclose(found[12_000:], samples[8000:], atol=1e-4)
    assert source.notes() == ["0.25 s without sound between its parts are silence"]


def test_truncated_wav_gives_what_is_there(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, 2.0)
    path.write_bytes(path.read_bytes()[: 44 + 16000])
    source = open_audio(path)
    assert source.duration_s == pytest.approx(0.5)
    assert sum(len(block) for block in source.blocks(16000)) == 8000


def test_wav_without_samples(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, 0.0)
    with pytest.raises(InputError, match="no sound"):
        open_audio(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e38])
def test_samples_that_are_no_sound_are_damage(tmp_path, value):
    path = tmp_path / "a.wav"
    samples = tone(1.0, 16000)
    samples[[8000, 8001]] = value
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    source = open_audio(path)
    (found,) = source.blocks(16000)
    np.testing.assert_array_equal(found[8000:8002], 0)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1
    assert source.is_damaged(np.array([0.1, 0.5, 0.9])).tolist() == [False, True, False]
    (note,) = source.notes()
    assert "s of the sound (first at 0." in note
    assert source.damaged_s[0][1] - source.damaged_s[0][0] < 0.3


def encoded(codec, container, rate, seconds, hz):
    """A tone in memory."""
    file, samples = io.BytesIO(), tone(seconds, rate, hz)
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(samples), 1024):
            block = samples[None, start : start + 1024]
            block = (block * 32767).astype(np.int16) if codec == "flac" else block
            sample = "s16" if codec == "flac" else "fltp"
            frame = av.AudioFrame.from_ndarray(block, sample, "mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def test_a_wrong_checksum_is_damage(tmp_path):
    data = bytearray(encoded("flac", "matroska", 16000, 2.0, 440))
    (tmp_path / "a.mkv").write_bytes(data)
    source = open_audio(tmp_path / "a.mkv")
    intact = np.concatenate(list(source.blocks(16000)))
    assert source.notes() == []
    data[len(data) // 2] ^= 0x10
    (tmp_path / "a.mkv").write_bytes(data)
    source = open_audio(tmp_path / "a.mkv")
    found = np.concatenate(list(source.blocks(16000)))
    differ = np.flatnonzero(found[:32000] != intact[:32000]) / 16000
    assert source.is_damaged(differ).all()
    assert 0 < len(differ) < 16000


def test_a_sample_rate_that_changes_is_resampled_and_noted(tmp_path):
    path = tmp_path / "a.aac"
    path.write_bytes(
        encoded("aac", "adts", 44100, 1.0, 440) + encoded("aac", "adts", 48000, 1.0, 880)
    )
    source = open_audio(path)
    found = np.concatenate(list(source.blocks(16000)))
    peaks = [np.abs(np.fft.rfft(found[at : at + 4096])).argmax() for at in (3200, 22400)]
    np.testing.assert_allclose(np.array(peaks) * 16000 / 4096, [440, 880], atol=4)
    assert any("changes from 44100 to 48000 Hz at 1.0" in note for note in source.notes())


def test_long_sound_is_streamed_in_bounded_memory(tmp_path):
    path = tmp_path / "a.wav"
    minutes = 10
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(44100)
        second = (tone(1.0, 44100) * 32767).astype("<i2").tobytes()
        for _ in range(60 * minutes):
            out.writeframes(second)
    tracemalloc.start()
    total = sum(len(block) for block in open_audio(path).blocks(16000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 60 * minutes * 16000
    assert peak < 8 << 20  # the whole would be 38 MB
