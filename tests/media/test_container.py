"""Which files and which of their streams are read; the others end in one line."""

from __future__ import annotations

import os
import wave
from fractions import Fraction

import av
import av.stream
import cv2
import numpy as np
import pytest

from maven_jax.media.container import has_audio
from maven_jax.media.frame_times import probe
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
        (cv2.imencode(".jpg", np.zeros((32, 32, 3), np.uint8))[1].tobytes(), "a picture;"),
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


def test_of_several_tracks_the_first_is_read_and_named(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=25) for _ in range(2)]
        for count, stream in zip((12, 9), streams):
            stream.width = stream.height = 64 if count == 12 else 48
            stream.pix_fmt = "yuv420p"
        sounds = [out.add_stream("pcm_s16le", rate=16000, layout="mono") for _ in range(2)]
        sounds[1].metadata["language"] = "eng"
        for count, stream in zip((12, 9), streams):
            for i in range(count):
                side = stream.width
                image = np.zeros((side, side, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode())
        for stream in sounds:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            out.mux(stream.encode(frame))
            out.mux(stream.encode())
    info = probe(path)
    assert len(info.times_s) == 12
    (fix,) = info.fixes
    assert fix.message == "of 2 video tracks track 0 (64 x 64) is read, not track 1 (48 x 48)"
    sound = open_audio(path)
    assert list(sound.blocks(16000))
    assert sound.notes() == [
        "of 2 audio tracks track 2 is read, not track 3 (eng)",
        "the sound is silent throughout",
    ]


def claims(path, what):
    """A small file whose header claims what no recording has."""
    rate, channels = {"rate": (1, 1), "fast": (1_000_000, 1)}.get(what, (16000, 256))
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(b"\1\0" * 1000 * channels)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("rate", "a sample rate of 1 Hz"),
        ("fast", "a sample rate of 1,000,000 Hz"),
        ("channels", "256 channels"),
    ],
)
def test_sound_that_no_recorder_makes_is_refused(tmp_path, what, message):
    claims(tmp_path / "a.wav", what)
    with pytest.raises(InputError, match=message):
        open_audio(tmp_path / "a.wav")


def test_pictures_larger_than_those_of_8k_are_refused(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width = stream.height = 6000
        stream.pix_fmt = "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((6000, 6000), np.uint8), format="gray")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    with pytest.raises(InputError, match="6,000 x 6,000 pixels are too large"):
        probe(tmp_path / "a.mkv")


@pytest.mark.parametrize("read", [probe, open_audio])
def test_what_is_no_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.mp4")
    os.symlink("/dev/zero", tmp_path / "zero.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, message in (("pipe", "a pipe"), ("zero", "device"), ("folder", "a folder")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / f"{name}.mp4")


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


def write_flash(path, video_codec, sound_codec):
    """A video of 20 frames, dark up to the tenth, and a tone that begins with that one."""
    rate = 48_000
    tone_s = np.where(np.arange(rate * 4 // 5) < rate * 2 // 5, 0, 0.5)
    samples = tone_s * np.sin(2 * np.pi * 440 * np.arange(rate * 4 // 5) / rate)
    with av.open(str(path), "w") as out:
        video = None
        if video_codec:
            video = out.add_stream(video_codec, rate=25)
            video.width, video.height, video.pix_fmt = 192, 144, "yuv420p"
        sound = out.add_stream(sound_codec, rate=rate, layout="stereo")
        sound.bit_rate = 128_000
        sound.open()
        for i in range(20 if video else 0):
            pixels = np.full((144, 192, 3), 220 if i >= 10 else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode() if video else [])
        frame = av.AudioFrame.from_ndarray(
            np.repeat((samples * 32767).astype(np.int16), 2)[None], "s16", "stereo"
        )
        frame.sample_rate, frame.pts = rate, 0
        context = sound.codec_context
        resampler = av.AudioResampler(context.format, "stereo", rate, context.frame_size or 1024)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            out.mux(sound.encode(part))
        out.mux(sound.encode())
    return path


@pytest.mark.parametrize(
    ("name", "video", "sound"),
    [
        ("a.wmv", "wmv2", "wmav2"),
        ("a.asf", "msmpeg4", "wmav2"),
        ("a.flv", "flv", "aac"),
        ("a.mpg", "mpeg2video", "mp2"),
        ("a.vob", "mpeg2video", "ac3"),
        ("a.ts", "libx264", "aac"),
        ("a.mxf", "mpeg2video", "pcm_s16le"),
        ("a.3gp", "mpeg4", "aac"),
        ("a.wma", None, "wmav2"),
        ("a.aiff", None, "pcm_s16be"),
        ("a.caf", None, "pcm_s16le"),
        ("a.w64", None, "pcm_s16le"),
        ("a.au", None, "pcm_s16be"),
    ],
)
def test_pictures_and_sound_of_all_containers_stay_together(tmp_path, name, video, sound):
    path = write_flash(tmp_path / name, video, sound)
    source = open_audio(path)
    loud = np.abs(np.concatenate(list(source.blocks(16_000)))) > 0.1
    tone_s = source.start_s + int(loud.argmax()) / 16_000
    flash_s = 0.4
    if video:
        info = probe(path)
        assert len(info.times_s) == 20
        np.testing.assert_allclose(np.diff(info.times_s), 0.04, atol=2e-3)
        flash_s = info.times_s[10]
    # Where nothing is said of an encoder's delay, it is part of the sound.
    assert tone_s == pytest.approx(flash_s, abs=0.05)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"), [("a.gif", "gif", "rgb8"), ("a.y4m", "rawvideo", "yuv420p")]
)
def test_moving_pictures_without_sound(tmp_path, name, codec, pixels):
    with av.open(str(tmp_path / name), "w") as out:
        video = out.add_stream(codec, rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, pixels
        for i in range(7):
            grey = np.full((48, 64, 3), 30 * i, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        out.mux(video.encode())
    np.testing.assert_allclose(probe(tmp_path / name).times_s, np.arange(7) / 10, atol=1e-6)
    assert not has_audio(tmp_path / name)
