"""Small real corpora for tests, in Aff-Wild2's layout: playable videos, JPEG crops, WAV, text.

Deterministic and quick (a video of one second takes some 20 ms), with nothing to learn in it;
`data_prep.synth.command` makes the corpora that models are trained on.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

ANNOTATIONS = Path("annotations/VA_Estimation_Challenge")
FOLDERS = {"train": "Train_Set", "validation": "Validation_Set"}
SPLITS = {
    "train_a": "train",
    "train_b": "train",
    "validation_a": "validation",
    "test_a": "test",
}


def write_video(
    path: Path,
    *,
    frames: int = 30,
    fps: int | Fraction = 30,
    times: Sequence[int] | None = None,
    sound_s: float | None = None,
    sound_at_s: float = 0.0,
    sample_rate_hz: int = 16000,
    size: int = 64,
    images: Sequence[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> None:
    """Writes H.264 (MPEG-4 for .avi) and, with `sound_s`, a 440 Hz tone.

    Args:
        path: its suffix says which container.
        frames: how many; the picture's brightness rises with their number.
        fps: frames per second, and the unit of `times`.
        times: presentation time of each frame in units of 1 / fps; by default 0, 1, 2 …
        sound_s: seconds of sound, None for none.
        sound_at_s: when the sound begins.
        sample_rate_hz: of the sound.
        size: width and height.
        images: pictures to show instead, (h, w, 3) in RGB each.
        options: of the video encoder.
        container: options of the muxer, such as {"movflags": "faststart"}.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    avi = path.suffix == ".avi"
    with av.open(str(path), "w", options=container or {}) as out:
        video = out.add_stream("mpeg4" if avi else "libx264", rate=fps, options=options or {})
        video.height, video.width = (size, size) if images is None else images[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        sound = None
        if sound_s is not None:
            codec = "mp2" if avi else "aac"
            sound = out.add_stream(codec, rate=sample_rate_hz, layout="mono")
        for i in range(frames):
            pixels = np.full((size, size, 3), (7 * i) % 256, np.uint8)
            pixels[: size // 2] //= 2
            pixels = pixels if images is None else images[i]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[i] if times is not None else i
            frame.time_base = 1 / Fraction(fps)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if sound is not None:
            samples = tone(sound_s, sample_rate_hz)
            step = 1152 if avi else 1024
            for start in range(0, len(samples), step):
                block = samples[None, start : start + step]
                block = (block * 32767).astype(np.int16) if avi else block
                frame = av.AudioFrame.from_ndarray(block, "s16" if avi else "fltp", "mono")
                frame.sample_rate = sample_rate_hz
                frame.time_base = Fraction(1, sample_rate_hz)
                frame.pts = start + round(sound_at_s * sample_rate_hz)
                out.mux(sound.encode(frame))
            out.mux(sound.encode())


def tone(seconds: float, sample_rate_hz: int, hz: float = 440.0) -> np.ndarray:
    """A sine of amplitude 0.5, float32."""
    at_s = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    return (0.5 * np.sin(2 * np.pi * hz * at_s)).astype(np.float32)


def write_wav(path: Path, seconds: float, sample_rate_hz: int = 16000, channels: int = 1) -> None:
    """A 440 Hz tone as 16-bit PCM, the same in every channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.round(tone(seconds, sample_rate_hz) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(sample_rate_hz)
        out.writeframes(np.repeat(samples, channels).tobytes())


def write_crops(folder: Path, frames: Sequence[int], size: int = 112) -> None:
    """A JPEG for each frame index (from 0); its grey is twice the index."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        picture = np.full((size, size, 3), 2 * frame % 256, np.uint8)
        cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), picture)


def write_annotation(path: Path, values: np.ndarray) -> None:
    """Writes the header and one line for each row of `values`, (n, 2)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{v:.3f},{a:.3f}\n" for v, a in values)
    path.write_text("valence,arousal\n" + rows)


def smooth_values(frames: int, seed: int) -> np.ndarray:
    """(frames, 2) slow sines within [-0.8, 0.8]."""
    at = np.arange(frames) / 30.0
    phase = np.array([0.7 * seed, 1.3 * seed + 1.0])
    return 0.8 * np.sin(at[:, None] * np.array([1.1, 0.7]) + phase)


def write_tiny_corpus(
    root: Path,
    videos: dict[str, str] | int | None = None,
    seconds: float = 2.0,
    fps: int = 25,
    missing_crops: Sequence[int] = (3,),
    unlabelled: Sequence[int] = (5,),
) -> Path:
    """Writes a small faultless corpus.

    Args:
        root: folder, made if need be.
        videos: name -> split, or a number of videos (about two thirds of them in train, then
            validation, one in test if there are at least four); by default `SPLITS`. Names
            `<stem>_left` and `<stem>_right` share one video, sound and transcript.
        seconds: length of each video.
        fps: frames per second.
        missing_crops: frames (from 0) without crop, in every video.
        unlabelled: frames annotated -5, in every video.

    The second video's sound is only in its mp4; all others have a WAV too. Test videos have no
    annotation and stand in a template. All have a transcript of one segment per second.

    Returns:
        `root`.
    """
    if isinstance(videos, int):
        kinds = ["train"] * max(round(videos * 2 / 3), 1)
        kinds += ["validation"] * (videos - len(kinds))
        if videos >= 4:
            kinds[-1] = "test"
        videos = {f"video_{i:02d}": split for i, split in enumerate(kinds)}
    videos = dict(videos or SPLITS)
    frames = round(seconds * fps)
    for folder in FOLDERS.values():
        (root / ANNOTATIONS / folder).mkdir(parents=True, exist_ok=True)
    template = ["image_location,valence,arousal"]
    for seed, (name, split) in enumerate(videos.items()):
        stem = name.removesuffix("_left").removesuffix("_right")
        media = root / "videos" / f"batch{seed % 2 + 1}" / f"{stem}.mp4"
        if not list((root / "videos").glob(f"*/{stem}.mp4")):
            write_video(media, frames=frames, fps=fps, sound_s=seconds)
            if seed != 1:
                write_wav(root / "audio" / f"{stem}.wav", seconds)
            lines = [f"[{s:.2f}s - {s + 0.9:.2f}s] words at {s}\n" for s in range(int(seconds))]
            (root / "transcripts").mkdir(exist_ok=True)
            (root / "transcripts" / f"{stem}.txt").write_text("".join(lines))
        present = [i for i in range(frames) if i not in missing_crops]
        write_crops(root / "cropped_aligned" / name, present)
        if split == "test":
            template += [f"{name}/{i + 1:05d}.jpg,0,0" for i in range(frames)]
        else:
            values = smooth_values(frames, seed)
            values[[i for i in unlabelled if i < frames]] = -5
            write_annotation(root / ANNOTATIONS / FOLDERS[split] / f"{name}.txt", values)
    if len(template) > 1:
        path = root / ANNOTATIONS / "VA_test_template.txt"
        path.write_text("\n".join(template) + "\n")
    return root


def write_rated_videos(root: Path, names: dict[str, str]) -> Path:
    """Writes a user's own corpus: videos of 30 frames in 1.2 s, rated in the first second.

    Args:
        root: folder, made if need be.
        names: video -> train or validation.

    Returns:
        `root`.
    """
    for name, split in names.items():
        write_video(root / "videos" / "phone" / f"{name}.mp4", frames=30, fps=25, sound_s=1.2)
        ratings = "".join(f"{i / 4},{i / 10},{-i / 10}\n" for i in range(5))
        path = root / "annotations" / split / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("time_s,valence,arousal\n" + ratings)
    return root
