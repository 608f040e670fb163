"""Which files and which of their streams are read; the others end in one line."""

from __future__ import annotations

from fractions import Fraction

import av
import av.stream
import cv2
import numpy as np
import pytest

from maven_jax.media.container import has_audio
from maven_jax.media.frame_times import frame_times, probe
from maven_jax.media.problems import InputError
from maven_jax.media.sound import open_audio
from tests.support.corpora import tone, write_video, write_wav


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
