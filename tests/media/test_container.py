"""Frame times and sound by the container's timestamps, on clips made here."""

from __future__ import annotations

import tracemalloc
import wave
from fractions import Fraction

import av
import av.stream
import cv2
import librosa
import numpy as np
import pytest
import soundfile

from maven_jax.media import container as media
from maven_jax.media.container import (
    container_start_s,
    frame_times,
    has_audio,
    open_audio,
    probe,
    spread,
)
from maven_jax.media.problems import InputError
from tests.support.corpora import tone, write_video, write_wav


def _decoded_times(path):
    with av.open(str(path)) as container:
        zero_s = (container.start_time or 0) / av.time_base
        return np.array([float(f.pts * f.time_base) for f in container.decode(video=0)]) - zero_s


def _forbid_decoding(monkeypatch):
    def fail(path):
        raise AssertionError(f"{path} was decoded as a whole")

    monkeypatch.setattr(media, "_decode_pts", fail)


@pytest.mark.parametrize("fps", [30, 25, Fraction(25, 2), Fraction(30000, 1001)])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_constant_rates(tmp_path, monkeypatch, fps, suffix):
    path = tmp_path / f"a{suffix}"
    write_video(path, frames=40, fps=fps)
    _forbid_decoding(monkeypatch)
    info = probe(path)
    tolerance = 1e-3 if suffix == ".mkv" else 1e-6  # Matroska counts milliseconds
    np.testing.assert_allclose(info.times_s, np.arange(40) / float(fps), atol=tolerance)
    assert info.fps == pytest.approx(float(fps), rel=2e-3)
    assert info.duration_s == pytest.approx(40 / float(fps), abs=0.01)
    assert info.fixes == []


def test_variable_rate_equals_decoding(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    steps = np.random.default_rng(0).integers(1, 9, 60)
    times = np.concatenate([[0], np.cumsum(steps)])
    write_video(path, frames=61, fps=100, times=times.tolist())
    _forbid_decoding(monkeypatch)
    found = frame_times(path)
    np.testing.assert_allclose(found, times / 100, atol=1e-6)
    np.testing.assert_allclose(found, _decoded_times(path), atol=1e-9)


def test_video_that_begins_late_keeps_its_place(tmp_path):
    path = tmp_path / "a.mkv"
    write_video(path, frames=20, fps=20, times=list(range(10, 30)), sound_s=1.5)
    info = probe(path)
    np.testing.assert_allclose(info.times_s, 0.5 + np.arange(20) / 20, atol=2e-3)
    assert info.audio_start_s == pytest.approx(0.0, abs=0.03)


def test_clock_begins_at_the_containers_start(tmp_path):
    """MPEG-TS begins anywhere; here the sound begins it by the encoder's delay."""
    path = tmp_path / "a.ts"
    write_video(path, frames=30, fps=30, sound_s=1.0)
    with av.open(str(path)) as container:
        assert container.start_time > 0
    info = probe(path)
    np.testing.assert_allclose(info.times_s, _decoded_times(path), atol=1e-9)
    np.testing.assert_allclose(np.diff(info.times_s), 1 / 30, atol=1e-4)
    assert open_audio(path).start_s == pytest.approx(info.audio_start_s)


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path, monkeypatch):
    """Packets that are decoded but never shown: annotations were made on what is shown."""
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_video(whole, frames=30, fps=30, options={"bf": "0"})
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts -= 3 * packet.duration
                packet.dts -= 3 * packet.duration
                packet.stream = stream
                out.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 30
    _forbid_decoding(monkeypatch)
    found = frame_times(path)
    assert len(found) == 27
    np.testing.assert_allclose(found, _decoded_times(path), atol=1e-9)


def test_spread_keeps_the_number_of_frames():
    found = spread(np.array([0.0, 1.0, 1.0, 1.0, 0.5, 3.0, 3.0]))
    np.testing.assert_allclose(found, [0, 0.5, 1, 5 / 3, 7 / 3, 3, 3.25])
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(spread(np.zeros(2)), [0, 1 / 60])


def test_missing_timestamps_lie_between_their_neighbours():
    found = media._fill_missing([None, 10, None, 30, 40, None])
    np.testing.assert_allclose(found, [0, 10, 20, 30, 40, 50])
    np.testing.assert_allclose(media._fill_missing([None, None]), [0, 1])


def test_repeated_timestamps_are_spread_and_stated(tmp_path):
    """Matroska counts milliseconds: two frames of each share one here."""
    path = tmp_path / "a.mkv"
    write_video(path, frames=20, fps=2000, options={"bf": "0"})
    assert len(np.unique(_decoded_times(path))) < 20
    info = probe(path)
    assert len(info.times_s) == 20
    assert (np.diff(info.times_s) > 0).all()
    np.testing.assert_allclose(info.times_s, np.arange(20) / 2000, atol=1.1e-3)
    assert "repeat the timestamp" in info.fixes[0].message


def test_a_long_pause_is_kept_and_noted(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, frames=4, fps=10, times=[0, 1, 201, 202], options={"bf": "0"})
    info = probe(path)
    np.testing.assert_allclose(info.times_s, [0, 0.1, 20.1, 20.2], atol=1e-6)
    (fix,) = info.fixes
    assert (fix.severity, fix.place) == ("note", "frame 2")
    assert "no frame for 20.0 s" in fix.message


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_before_the_first_key_frame_do_not_count(tmp_path, suffix):
    """A recording that was cut where no picture begins: its first packets show nothing."""
    whole, path = tmp_path / "whole.mp4", tmp_path / f"cut{suffix}"
    write_video(whole, frames=30, fps=25, options={"bf": "2", "g": "10"})
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [p for p in source.demux(video=0) if p.dts is not None]
        for packet in packets[3:]:
            packet.stream = stream
            out.mux(packet)
    info = probe(path)
    with av.open(str(path)) as container:
        shown = [frame.time - container_start_s(container) for frame in container.decode(video=0)]
    np.testing.assert_allclose(info.times_s, shown, atol=1e-6)
    assert len(shown) < 27
    assert info.fixes[0].message.startswith(f"{len(shown)} frames decode out of 27 packets")
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and not packet.is_keyframe:
                packet.stream = stream
                out.mux(packet)
    with pytest.raises(InputError, match="no frame of the video decodes"):
        probe(path)


@pytest.mark.parametrize("keep", [0.5, 0.8])
def test_video_whose_end_is_cut_off(tmp_path, keep):
    path = tmp_path / "a.mp4"
    write_video(path, frames=90, fps=30, size=128, container={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    info = probe(path)
    decoded = len(_safely_decoded(path))
    assert 0 < len(info.times_s) < 90
    assert len(info.times_s) == decoded
    assert info.fixes[0].severity == "repaired"
    assert "header says 90 frames" in info.fixes[0].message


def test_video_whose_end_was_never_written(tmp_path):
    """A download that reserved its space: the index is whole, the last packets are zeros."""
    path = tmp_path / "a.mp4"
    options = {"g": "15"}
    write_video(path, frames=60, size=128, options=options, container={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[:-800] + b"\0" * 800)
    info = probe(path)
    assert len(info.times_s) == len(_safely_decoded(path)) < 60
    assert any("decode out of 60 packets" in fix.message for fix in info.fixes)


def _safely_decoded(path):
    frames = []
    with av.open(str(path)) as container:
        try:
            for packet in container.demux(video=0):
                try:
                    frames += [f.pts for f in packet.decode()]
                except av.FFmpegError:
                    continue
        except av.FFmpegError:
            pass
    return frames


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"this is text, not a video\n" * 100, "cannot be opened"),
        (None, "cannot be opened (truncated"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "cannot be opened"),
        (b"ffconcat version 1.0\nfile 'other.mp4'\n", "cannot be opened"),
    ],
)
@pytest.mark.parametrize("read", [probe, open_audio])
def test_broken_files_end_in_one_line(tmp_path, data, message, read):
    path = tmp_path / "a.mp4"
    write_video(tmp_path / "other.mp4", frames=5, sound_s=0.2)
    if data is None:
        data = (tmp_path / "other.mp4").read_bytes()[:1500]
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read(path)
    assert message in caught.value.message
    assert "\n" not in str(caught.value)
    assert not has_audio(path)


def test_the_picture_on_an_albums_cover_is_no_video(tmp_path):
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("libmp3lame", rate=16000, layout="mono")
        cover = out.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 8, 8, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.start_encoding()
        _, data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))
        packet = av.Packet(data.tobytes())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        packet.time_base = Fraction(1, 16000)
        out.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone(1.0, 16000)[None], "fltp", "mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode())
    with av.open(str(path)) as found:
        assert len(found.streams.video) == 1
    with pytest.raises(InputError, match="no video stream"):
        probe(path)
    assert open_audio(path).duration_s == pytest.approx(1.0, abs=0.1)


def test_of_two_videos_the_first_counts(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for count, stream in zip((12, 9), streams):
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for i in range(count):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
    assert len(frame_times(path)) == 12


def test_missing_streams(tmp_path):
    write_video(tmp_path / "silent.mp4", frames=5)
    write_wav(tmp_path / "a.wav", 0.1)
    with pytest.raises(InputError, match="no audio stream"):
        open_audio(tmp_path / "silent.mp4")
    with pytest.raises(InputError, match="no video stream"):
        probe(tmp_path / "a.wav")
    with pytest.raises(InputError, match="no such file"):
        probe(tmp_path / "absent.mp4")
    assert not has_audio(tmp_path / "silent.mp4")
    assert has_audio(tmp_path / "a.wav")
    assert probe(tmp_path / "silent.mp4").audio_end_s is None


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
    found = np.concatenate(list(open_audio(path).blocks(16000)))
    assert len(found) == 20_000
    np.testing.assert_array_equal(found[8000:12_000], 0)
    np.testing.assert_allclose(found[12_000:], samples[8000:], atol=1e-4)


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


def test_numbers_that_are_none_become_silence(tmp_path):
    path = tmp_path / "a.wav"
    samples = tone(0.1, 16000)
    samples[[3, 4]] = [np.nan, np.inf]
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    (found,) = open_audio(path).blocks(16000)
    np.testing.assert_array_equal(found[3:5], 0)
    assert np.isfinite(found).all()


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
