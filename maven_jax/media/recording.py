"""What a user gave to be predicted: a video, a sound or a folder of face crops, on one clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maven_jax.errors import UserError
from maven_jax.media.container import MediaInfo, has_audio, mean_fps, open_audio, probe
from maven_jax.media.crops import Crops
from maven_jax.media.problems import InputError

# Rows per second of a sound without pictures, where nobody says otherwise.
SOUND_FPS = 30.0


@dataclass(frozen=True)
class Material:
    """A media file or folder and what there is in it.

    Attributes:
        source: as given.
        times_s: (n,) of the frames that are predicted, seconds from the container's start.
        duration_s: until the last frame ends.
        info: of the video stream; None without pictures.
        crops: the folder of crops that was given, else None.
        audio: the file with the sound, None without.
        notes: what was odd, in sentences.
    """

    source: Path
    times_s: Float[np.ndarray, "n"]
    duration_s: float
    info: MediaInfo | None
    crops: Path | None
    audio: Path | None
    notes: tuple[str, ...]

    @property
    def fps(self) -> float:
        """Frames per second by the timestamps."""
        return mean_fps(self.times_s)


def open_material(path: Path, *, crops: Path | None, fps: float | int | None) -> Material:
    """Looks at what is in a media file or a folder of crops.

    Args:
        path: a video, a sound file or a folder of crops.
        crops: the crops of a video's faces, cut elsewhere; None to find the faces in it.
        fps: frames per second where the material tells no times: of crops, where it is needed,
            and of sound alone, where None means `SOUND_FPS`.

    Raises:
        UserError: nothing there, nothing that can be decoded, or crops without `fps`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir():
        return _of_crops(path, fps)
    if crops is not None and not crops.is_dir():
        raise UserError(f"{crops}: no such folder of crops")
    try:
        info = probe(path)
    except InputError as error:
        return _of_sound(path, fps, error)
    sound = has_audio(path) and info.audio_end_s is not None
    notes = tuple(fix.message for fix in info.fixes)
    return Material(
        path, info.times_s, info.duration_s, info, crops, path if sound else None, notes
    )


def _of_crops(path: Path, fps: float | int | None) -> Material:
    frames = Crops(path).existing
    if not len(frames):
        raise UserError(f"{path}: no face crops in this folder (00001.jpg is the first frame's)")
    if fps is None:
        raise UserError(f"{path}: a folder of crops tells no times; give --fps")
    times = np.arange(int(frames[-1]) + 1) / float(fps)
    return Material(path, times, len(times) / float(fps), None, path, None, ())


def _of_sound(path: Path, fps: float | int | None, no_video: InputError) -> Material:
    """A file without usable pictures: frames are a grid over its sound."""
    try:
        sound = open_audio(path)
    except InputError as no_sound:
        if "opened" in no_sound.message or no_sound.message == no_video.message:
            raise no_video from None
        both = f"nothing to predict from: {no_video.message}; {no_sound.message}"
        raise InputError(path, "", both) from None
    fps = SOUND_FPS if fps is None else fps
    end_s = sound.start_s + sound.duration_s
    times = np.arange(max(int(end_s * fps + 1e-6), 1)) / float(fps)
    note = f"{no_video.message}: sound alone, a row every 1/{fps:g} s"
    return Material(path, times, end_s, None, None, path, (note,))
