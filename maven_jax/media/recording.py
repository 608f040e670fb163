"""One recording: when its frames are shown, and the files with its faces, sound, words, ratings."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maven_jax.errors import UserError
from maven_jax.media.container import MAX_FRAMES, has_audio
from maven_jax.media.crops import Crops
from maven_jax.media.frame_times import MediaInfo, mean_fps, probe
from maven_jax.media.problems import InputError
from maven_jax.media.sound import open_audio

# Rows per second of a sound without pictures, where nobody says otherwise.
SOUND_FPS = 30.0


@dataclass(frozen=True)
class Recording:
    """What features are made of and predictions are made for, whatever it was collected for.

    Attributes:
        source: the video, the sound or the folder of crops; it names the recording.
        times_s: (n,) when each frame is shown, seconds from the container's start.
        duration_s: of all frames, the last one included.
        info: of the video stream; None without one, and where nobody needs it.
        crops: folder of face crops, one for each frame with a face.
        audio: file with the sound.
        transcript: file with the words.
        annotation: file with a rating for every frame.
        notes: what was odd, in sentences.
        first_frame: number in the file of the first of the frames; above 0 for a part.
        first_crop: frame of the file whose crop is the first frame's.
        span_s: from when to when the sound counts; None for all of it.
    """

    source: Path
    times_s: Float[np.ndarray, "n"]
    duration_s: float
    info: MediaInfo | None = None
    crops: Path | None = None
    audio: Path | None = None
    transcript: Path | None = None
    annotation: Path | None = None
    notes: tuple[str, ...] = ()
    first_frame: int = 0
    first_crop: int = 0
    span_s: tuple[float, float] | None = None

    @property
    def num_frames(self) -> int:
        return len(self.times_s)

    @property
    def fps(self) -> float:
        """Frames per second by the timestamps."""
        return mean_fps(self.times_s)

    @property
    def has_pictures(self) -> bool:
        return self.info is not None or self.crops is not None


def open_recording(path: Path, *, crops: Path | None, fps: float | int | None) -> Recording:
    """Looks at what is in a media file or a folder of crops.

    Args:
        path: a video, a sound file or a folder of crops.
        crops: the crops of a video's faces, cut elsewhere; None to find the faces in it.
        fps: frames per second where the files tell no times: of crops, where it is needed, and
            of sound alone, where None means `SOUND_FPS`.

    Raises:
        UserError: no such file, nothing in it that can be decoded, or crops without `fps`.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir():
        return _of_crops(path, fps)
    if crops is not None and not crops.is_dir():
        raise UserError(f"{crops}: no such folder of crops")
    if crops is not None:
        Crops(crops).check_names()
    try:
        info = probe(path)
    except InputError as error:
        return _of_sound(path, fps, error)
    has_sound = has_audio(path) and info.audio_end_s is not None
    return Recording(
        path,
        info.times_s,
        info.duration_s,
        info,
        crops,
        path if has_sound else None,
        notes=tuple(fix.message for fix in info.fixes),
    )


def _of_crops(path: Path, fps: float | int | None) -> Recording:
    crops = Crops(path)
    crops.check_names()
    num_frames = crops.num_frames
    if not num_frames:
        raise UserError(f"{path}: no face crops in this folder (00001.jpg is the first frame's)")
    if fps is None:
        raise UserError(f"{path}: a folder of crops tells no times; give --fps")
    times_s = np.arange(num_frames) / float(fps)
    return Recording(path, times_s, len(times_s) / float(fps), crops=path)


def _of_sound(path: Path, fps: float | int | None, no_video: InputError) -> Recording:
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
    if end_s * fps > MAX_FRAMES:
        raise InputError(path, "", f"{end_s:.0f} s at {fps:g} rows a second are too many rows")
    times_s = np.arange(max(int(end_s * fps + 1e-6), 1)) / float(fps)
    note = f"{no_video.message}: sound alone, a row every 1/{fps:g} s"
    return Recording(path, times_s, end_s, audio=path, notes=(note,))


def part_of(
    recording: Recording, start_s: float | int | None, end_s: float | int | None
) -> Recording:
    """The frames of a recording from `start_s` up to `end_s`, with their sound.

    Frames keep their times, on the clock of the whole. What features see is the part alone, as if
    the file had been cut there.

    Args:
        recording: all of a file.
        start_s: seconds from the container's start; None for its own.
        end_s: the same of the end.

    Raises:
        UserError: no frame lies between them.
    """
    if start_s is None and end_s is None:
        return recording
    whole = recording.times_s
    low, high = (-np.inf if start_s is None else start_s), (np.inf if end_s is None else end_s)
    first, stop = np.searchsorted(whole, (low, high)).tolist()
    if first >= stop:
        raise UserError(
            f"{recording.source}: no frame from {low:g} s up to {high:g} s; its frames are at "
            f"{whole[0]:.2f} to {whole[-1]:.2f} s"
        )
    times_s = whole[first:stop]
    from_s = float(times_s[0]) if first else 0.0
    until_s = float(whole[stop]) if stop < len(whole) else recording.duration_s
    info, audio, notes = recording.info, recording.audio, recording.notes
    if info is not None:
        info = dataclasses.replace(info, times_s=times_s, duration_s=until_s, first=first)
        start, end = info.audio_start_s, info.audio_end_s
        if audio is not None and start is not None and end is not None:
            audio = audio if start < until_s and end > from_s else None
    return dataclasses.replace(
        recording,
        times_s=times_s,
        duration_s=until_s - from_s,
        info=info,
        audio=audio,
        notes=(*notes, f"only the part from {from_s:.2f} to {until_s:.2f} s, as was asked for"),
        first_frame=first,
        first_crop=first if recording.crops is not None else 0,
        span_s=(from_s, until_s if stop < len(whole) else math.inf),
    )
