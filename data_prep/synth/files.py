"""Writes the files of one synthetic video: mp4, WAV, crops, annotation, transcript, truth.

Everything is made under `ROOT/.partial/<stem>` and moved to its place when whole. The video's
entry in `ROOT/truth/planted/` is moved last: a video that has one is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import wave
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float

from data_prep.synth.curves import generator
from data_prep.synth.plan import CastMember, Media
from data_prep.synth.scene import FRAME_HEIGHT, FRAME_WIDTH, Scene, direct, draw_frame
from data_prep.synth.words import transcript_text
from maven_jax.files import write_file

JPEG_QUALITY = 90
CHALLENGE = Path("annotations/VA_Estimation_Challenge")
SET_FOLDER = {"train": "Train_Set", "validation": "Validation_Set"}
_VARIABLE_BASE = 90_000  # ticks a second of a video with variable rate


def frame_times(media: Media, seconds: float | int, seed: int) -> Float[np.ndarray, "t"]:
    """Presentation times (s) of a video's frames: even, or drifting as a phone's camera does."""
    if media.fps:
        return np.arange(max(1, int(seconds * media.fps + 1e-6))) / media.fps
    rng = generator(seed, "rate", media.stem)
    steps: list[float] = []
    while sum(steps) < seconds:
        fps = float(rng.choice([30.0, 24.0, 15.0]))
        num = round(float(rng.uniform(1.0, 3.0)) * fps)
        steps.extend(1 / fps + rng.uniform(-0.004, 0.004, num))
    times = np.concatenate([[0.0], np.cumsum(steps)])
    times = np.rint(times * _VARIABLE_BASE) / _VARIABLE_BASE
    return times[times < seconds - 0.005]


def write_media(root: Path, media: Media, seconds: float | int, seed: int) -> dict:
    """Writes all files of `media`; returns its entry in the list of what was planted."""
    partial = root / ".partial" / media.stem
    shutil.rmtree(partial, ignore_errors=True)
    times = frame_times(media, seconds, seed)
    scene = direct(media, seconds, seed)
    faceless = [_faceless_runs(member, times.size, seed) for member in media.cast]
    sound = scene.sound(media.wav_hz or 16000) if media.sound else None

    _write_pictures(partial, media, scene, times, faceless, sound)
    if sound is not None and media.wav_hz:
        _write_wav(partial / "audio" / f"{media.stem}.wav", sound, media.wav_hz)
    if media.transcript:
        text = transcript_text(scene.utterances, media.transcript)
        _write_text(partial / "transcripts" / f"{media.stem}.{media.transcript}", text)
    tracks = []
    for i, member in enumerate(media.cast):
        rows = _write_annotation(partial, media, scene, i, times, seed)
        _write_truth(partial / "truth" / f"{member.name}.csv", scene, i, times)
        tracks.append(
            {
                "name": member.name,
                "person": member.person,
                "face_delay_s": round(scene.actors[i].face.delay_s, 4),
                "voice_delay_s": round(scene.actors[i].voice.delay_s, 4),
                "words_delay_s": round(scene.actors[i].words.delay_s, 4),
                "faceless": [[first, last] for first, last in faceless[i]],
                "missing_crops": sum(last - first + 1 for first, last in faceless[i]),
                **rows,
            }
        )
    entry = {
        "stem": media.stem,
        "split": media.split,
        "fps": media.fps or None,
        "variable_rate": not media.fps,
        "num_frames": int(times.size),
        "media": f"videos/{media.folder}/{media.stem}.mp4",
        "sound": media.sound,
        "wav_hz": media.wav_hz or None,
        "transcript": media.transcript or None,
        "num_utterances": len(scene.utterances),
        "irony": [[round(a, 2), round(b, 2)] for a, b in scene.irony],
        "tracks": tracks,
    }
    _move_into_place(partial, root)
    mark = root / "truth" / "planted" / f"{media.stem}.json"
    write_file(mark, (json.dumps(entry, indent=1) + "\n").encode())
    shutil.rmtree(partial)
    return entry


def _move_into_place(partial: Path, root: Path) -> None:
    """Moves whole crop folders and single other files, over what a killed run left behind."""
    for crops in sorted((partial / "cropped_aligned").iterdir()):
        target = root / "cropped_aligned" / crops.name
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(crops, target)
    for file in sorted(p for p in partial.rglob("*") if p.is_file()):
        target = root / file.relative_to(partial)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _faceless_runs(member: CastMember, num_frames: int, seed: int) -> list[tuple[int, int]]:
    """(first, last) 0-based frames of the runs in which the person looks away."""
    rng = generator(seed, "faceless", member.name)
    longest = max(1, min(20, num_frames // 20))
    away = np.zeros(num_frames + 1, bool)
    for i in range(member.faceless_runs):
        length = int(rng.integers(max(1, longest // 4), longest + 1))
        first = 0 if i == 0 and member.faceless_first else int(rng.integers(num_frames))
        away[first : min(first + length, num_frames)] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[False], away]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in edges.reshape(-1, 2)]


def _write_pictures(
    partial: Path,
    media: Media,
    scene: Scene,
    times: Float[np.ndarray, "t"],
    faceless: list[list[tuple[int, int]]],
    sound: np.ndarray | None,
) -> None:
    """Draws every frame once; writes it to the mp4 and its faces to the crops."""
    away = np.zeros((len(media.cast), times.size), bool)
    for i, runs in enumerate(faceless):
        for first, last in runs:
            away[i, first : last + 1] = True
    folders = [partial / "cropped_aligned" / member.name for member in media.cast]
    for folder in folders:
        folder.mkdir(parents=True)
    shots = scene.shots(times)
    path = partial / "videos" / media.folder / f"{media.stem}.mp4"
    path.parent.mkdir(parents=True)
    with _Mp4(path, media, sound) as mp4:
        for t, time_s in enumerate(times):
            image = draw_frame(scene, shots, t, away[:, t])
            mp4.write(image, float(time_s), t)
            for i, folder in enumerate(folders):
                if not away[i, t]:
                    crop = shots[i].crop(image, t)
                    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
                    _, data = cv2.imencode(".jpg", crop, quality)
                    (folder / f"{t + 1:05d}.jpg").write_bytes(data.tobytes())


class _Mp4:
    """An H.264 + AAC file; one encoder thread and no dates, so that its bytes are reproducible."""

    def __init__(self, path: Path, media: Media, sound: np.ndarray | None):
        self.sound, self.sample_rate_hz = sound, media.wav_hz or 16000
        self.sent = 0
        options = {"fflags": "+bitexact", "movflags": "+faststart"}
        self.file = av.open(str(path), "w", format="mp4", options=options)
        rate = Fraction(media.fps).limit_denominator(100) if media.fps else Fraction(30)
        encoder = {"preset": "ultrafast", "crf": "24", "threads": "1", "g": "60"}
        self.video = self.file.add_stream("libx264", rate=rate, options=encoder)
        self.video.width, self.video.height = FRAME_WIDTH, FRAME_HEIGHT
        self.video.pix_fmt = "yuv420p"
        self.video.codec_context.thread_count = 1
        self.base = 1 / rate if media.fps else Fraction(1, _VARIABLE_BASE)
        self.video.codec_context.time_base = self.base
        self.audio = None
        if sound is not None:
            self.audio = self.file.add_stream("aac", rate=self.sample_rate_hz, layout="mono")
            self.audio.bit_rate = 64_000

    def __enter__(self) -> _Mp4:
        return self

    def write(self, image: np.ndarray, time_s: float, index: int) -> None:
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts, frame.time_base = round(time_s / self.base), self.base
        self.file.mux(self.video.encode(frame))
        self._write_sound(round(time_s * self.sample_rate_hz))

    def _write_sound(self, until: int) -> None:
        """Sends sound up to the sample `until` in the encoder's blocks of 1024."""
        if self.sound is None or self.audio is None:
            return
        while self.sent < min(until, self.sound.size):
            block = self.sound[None, self.sent : self.sent + 1024]
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = self.sample_rate_hz, self.sent
            frame.time_base = Fraction(1, self.sample_rate_hz)
            self.file.mux(self.audio.encode(frame))
            self.sent += block.shape[1]

    def __exit__(self, *_: object) -> None:
        if self.sound is not None and self.audio is not None:
            self._write_sound(self.sound.size)
            self.file.mux(self.audio.encode(None))
        self.file.mux(self.video.encode(None))
        self.file.close()


def _write_wav(path: Path, sound: Float[np.ndarray, "n"], sample_rate_hz: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())


def _write_annotation(
    partial: Path, media: Media, scene: Scene, i: int, times: Float[np.ndarray, "t"], seed: int
) -> dict:
    """Writes the annotation of person `i`; returns what was planted in it (nothing for test)."""
    if media.split not in SET_FOLDER:
        return {"annotation_lines": None, "unlabelled_rows": [], "extra_lines": 0}
    member = media.cast[i]
    rng = generator(seed, "rows", member.name)
    extra = max(member.extra_lines, 1 - times.size)
    if extra > 0:
        step = float(np.median(np.diff(times))) if times.size > 1 else 1 / 30
        times = np.concatenate([times, times[-1] + step * np.arange(1, extra + 1)])
    times = times[: times.size + min(extra, 0)]
    rows = [f"{v:.3f},{a:.3f}" for v, a in scene.actors[i].feeling.at(times)]
    count = min(int(np.ceil(member.unlabelled * len(rows))), len(rows) - 1)
    unlabelled: dict[int, str] = {}
    while len(unlabelled) < count:  # runs of up to five rows; seldom in one column only
        first, form = int(rng.integers(len(rows))), float(rng.random())
        for row in range(first, min(first + int(rng.integers(1, 6)), len(rows))):
            if row not in unlabelled and len(unlabelled) < count:
                v, a = rows[row].split(",")
                one = f"-5,{a}" if form < 0.1 else f"{v},-5"
                unlabelled[row] = "-5,-5" if form > 0.2 else one
    lines = ["valence,arousal", *(unlabelled.get(k, row) for k, row in enumerate(rows))]
    path = partial / CHALLENGE / SET_FOLDER[media.split] / f"{member.name}.txt"
    _write_text(path, "\n".join(lines) + "\n")
    return {
        "annotation_lines": len(rows),
        "unlabelled_rows": sorted(unlabelled),
        "extra_lines": extra,
    }


def _write_truth(path: Path, scene: Scene, i: int, times: Float[np.ndarray, "t"]) -> None:
    irony = scene.irony_at(times)
    lines = ["frame,time_s,valence,arousal,irony"]
    for t, (v, a) in enumerate(scene.actors[i].feeling.at(times)):
        lines.append(f"{t + 1},{times[t]:.5f},{v:.5f},{a:.5f},{irony[t]:.2f}")
    _write_text(path, "\n".join(lines) + "\n")
