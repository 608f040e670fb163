"""Frame times by the container's timestamps, on clips made here."""

from __future__ import annotations

from fractions import Fraction

import av
import av.stream
import numpy as np
import pytest

from maven_jax.media import frame_times as frame_times_module
from maven_jax.media.container import container_start_s
from maven_jax.media.frame_times import frame_times, probe, spread
from maven_jax.media.problems import InputError
from maven_jax.media.sound import open_audio
from tests.support.corpora import write_video


def _decoded_times(path):
    with av.open(str(path)) as container:
        zero_s = (container.start_time or 0) / av.time_base
        return np.array([float(f.pts * f.time_base) for f in container.decode(video=0)]) - zero_s


def _forbid_decoding(monkeypatch):
    def fail(path):
        raise AssertionError(f"{path} was decoded as a whole")

    monkeypatch.setattr(frame_times_module, "_decode_pts", fail)


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


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
@pytest.mark.parametrize("read", [probe, open_audio])
def test_a_clock_that_starts_again_is_refused(tmp_path, suffix, read):
    """Frames of both would be mixed, all within the time of the longer one."""
    parts = []
    for frames in (60, 40):
        write_video(tmp_path / f"a{suffix}", frames=frames, fps=25, sound_s=frames / 25)
        parts.append((tmp_path / f"a{suffix}").read_bytes())
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    with pytest.raises(InputError, match=r"joined.*2\.\d\d s: the clock falls back to -?0\.\d\d s"):
        read(path)


def test_a_file_joined_to_an_mp4_is_noted(tmp_path):
    """FFmpeg reads what the first one's index lists and nothing else."""
    write_video(tmp_path / "a.mp4", frames=20, fps=25)
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(data + data)
    assert probe(tmp_path / "a.mp4").fixes == []
    (fix,) = probe(tmp_path / "b.mp4").fixes
    assert fix.severity == "note"
    assert f"another file begins at byte {len(data):,}" in fix.message


@pytest.mark.parametrize(("transfer", "name"), [("arib-std-b67", "HLG"), ("smpte2084", "PQ")])
def test_high_dynamic_range_is_noted(tmp_path, transfer, name):
    colours = f"transfer={transfer}:colorprim=bt2020:colormatrix=bt2020nc"
    write_video(tmp_path / "a.mp4", frames=3, options={"x264-params": colours})
    (fix,) = probe(tmp_path / "a.mp4").fixes
    assert fix.message.startswith(f"high dynamic range ({name}): ")


def test_a_thousand_times_too_many_frames_a_second_are_refused(tmp_path):
    write_video(tmp_path / "a.mp4", frames=30, fps=100_000)
    with pytest.raises(InputError, match="the timestamps are not those of a video"):
        probe(tmp_path / "a.mp4")


def test_spread_keeps_the_number_of_frames():
    found = spread(np.array([0.0, 1.0, 1.0, 1.0, 0.5, 3.0, 3.0]))
    np.testing.assert_allclose(found, [0, 0.5, 1, 5 / 3, 7 / 3, 3, 3.25])
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(spread(np.zeros(2)), [0, 1 / 60])


def test_missing_timestamps_lie_between_their_neighbours():
    found = frame_times_module._fill_missing([None, 10, None, 30, 40, None])
    np.testing.assert_allclose(found, [0, 10, 20, 30, 40, 50])
    np.testing.assert_allclose(frame_times_module._fill_missing([None, None]), [0, 1])


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


def test_a_matroska_file_that_is_cut_off_says_so(tmp_path):
    """It has no table of frames: only its header's duration tells."""
    path = tmp_path / "a.mkv"
    write_video(path, frames=90, fps=30, size=128, sound_s=3.0)
    assert probe(path).fixes == []
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    info = probe(path)
    assert len(info.times_s) < 75
    assert any("cut short: the header says 3.0" in fix.message for fix in info.fixes)


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
