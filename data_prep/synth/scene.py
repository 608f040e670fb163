"""Directs one synthetic video: who feels, shows and says what, and where the heads are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from data_prep.synth.curves import (
    FACE_DELAY_S,
    FACE_NOISE,
    FACE_NOISE_S,
    VOICE_DELAY_S,
    VOICE_NOISE,
    VOICE_NOISE_S,
    WORDS_DELAY_S,
    Feeling,
    Shown,
    draw_feeling,
    generator,
    irony_curve,
    show,
    smooth_noise,
)
from data_prep.synth.face import (
    Expression,
    Image,
    Looks,
    draw_back_of_head,
    draw_looks,
    draw_person,
    draw_room,
    make_pose,
)
from data_prep.synth.plan import Media
from data_prep.synth.voice import Timbre, draw_timbre, synthesise
from data_prep.synth.words import Utterance, ironic_intervals, plan_turns, speak

FRAME_WIDTH, FRAME_HEIGHT = 320, 240
CROP_SIZE = 112
# Size and middle of a crop in units of the face's plane. As face aligners cut it, it shows the face
# without hair and shoulders, with its middle a little below the eyes.
CROP_UNITS, CROP_MIDDLE = 80, (0.0, 4.0)


@dataclass(frozen=True)
class Actor:
    """One person of a video: the truth, and what face, voice and words show of it."""

    looks: Looks
    timbre: Timbre
    feeling: Feeling
    face: Shown
    voice: Shown
    words: Shown
    place: tuple[float, float]  # resting place of the head, pixels


@dataclass(frozen=True)
class Shot:
    """What the camera sees of one actor, sampled at the t frames of the video.

    Attributes:
        expression: (t, 8) smile, mouth_open, brow, eye_open, gaze x y, turn x y.
        pose: (t, 2, 3) face units to pixels.
        seen_pose: (t, 2, 3) the pose according to an imperfect aligner.
    """

    expression: np.ndarray
    pose: np.ndarray
    seen_pose: np.ndarray

    def face(self, t: int) -> Expression:
        e = self.expression[t].tolist()
        return Expression(e[0], e[1], e[2], e[3], (e[4], e[5]), (e[6], e[7]))

    def crop(self, image: Image, t: int) -> UInt8[np.ndarray, "112 112 3"]:
        """The aligned 112 x 112 crop of the face."""
        seen = self.seen_pose[t]
        matrix = seen * (CROP_UNITS / CROP_SIZE, CROP_UNITS / CROP_SIZE, 1)
        matrix[:, 2] += seen[:, :2] @ (np.array(CROP_MIDDLE) - CROP_UNITS / 2 + 0.5)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (CROP_SIZE, CROP_SIZE)
        return cv2.warpAffine(image, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Scene:
    """A directed video, ready to be drawn and recorded."""

    media: Media
    seed: int
    seconds: float | int
    background: Image
    actors: tuple[Actor, ...]
    utterances: list[Utterance]
    irony: list[tuple[float, float]]

    def irony_at(self, times: Float[np.ndarray, "t"]) -> Float[np.ndarray, "t"]:
        clock = self.actors[0].feeling.time_s
        return np.interp(times, clock, irony_curve(clock, self.irony))

    def turns_of(self, i: int) -> list[tuple[float, float]]:
        return [(u.start_s, u.end_s) for u in self.utterances if u.speaker == i]

    def sound(self, sample_rate_hz: int) -> Float[np.ndarray, "samples"]:
        voices = [(a.timbre, a.voice, self.turns_of(i)) for i, a in enumerate(self.actors)]
        rng = generator(self.seed, "sound", self.media.stem)
        return synthesise(rng, voices, self.seconds, sample_rate_hz)

    def shots(self, times: Float[np.ndarray, "t"]) -> list[Shot]:
        return [_shot(self, i, times) for i in range(len(self.actors))]


def direct(media: Media, seconds: float | int, seed: int) -> Scene:
    """Draws everything about a video from streams named by seed, video and person."""
    turns = plan_turns(generator(seed, "turns", media.stem), seconds, len(media.cast))
    irony = ironic_intervals(turns)
    actors = []
    for i, member in enumerate(media.cast):
        common = generator(seed, "common", media.stem) if len(media.cast) > 1 else None
        feeling = draw_feeling(generator(seed, "feeling", member.name), seconds, common)
        person = generator(seed, "person", member.person)
        sign = 1 - 2 * irony_curve(feeling.time_s, irony)
        face, voice, words = (
            generator(seed, modality, member.name) for modality in ("face", "voice", "words")
        )
        middle = FRAME_WIDTH * (i + 1) / (len(media.cast) + 1)
        spread = 1.35 if len(media.cast) > 1 else 1.0
        actors.append(
            Actor(
                looks=draw_looks(person, member.offsets),
                timbre=draw_timbre(person, member.offsets),
                feeling=feeling,
                face=show(face, feeling, noise=FACE_NOISE, noise_s=FACE_NOISE_S,
                          delay_range_s=FACE_DELAY_S, sign=sign),
                voice=show(voice, feeling, noise=VOICE_NOISE, noise_s=VOICE_NOISE_S,
                           delay_range_s=VOICE_DELAY_S),
                words=show(words, feeling, noise=(0.0, 0.0), noise_s=FACE_NOISE_S,
                           delay_range_s=WORDS_DELAY_S),
                place=(FRAME_WIDTH / 2 + spread * (middle - FRAME_WIDTH / 2), 116.0),
            )
        )  # fmt: skip
    shown = [actor.words for actor in actors]
    utterances = speak(
        generator(seed, "speech", media.stem),
        turns,
        lambda speaker, time_s: float(shown[speaker].at(np.array([time_s]))[0, 0]),
    )
    background = draw_room(generator(seed, "room", media.stem), FRAME_WIDTH, FRAME_HEIGHT)
    return Scene(media, seed, seconds, background, tuple(actors), utterances, irony)


def _shot(scene: Scene, i: int, times: Float[np.ndarray, "t"]) -> Shot:
    actor, member = scene.actors[i], scene.media.cast[i]
    clock = actor.feeling.time_s
    rng = generator(scene.seed, "motion", member.name)

    def wander(width_s: float | int) -> np.ndarray:
        return np.interp(times, clock, smooth_noise(rng, clock.size, width_s))

    valence, arousal = actor.face.at(times).T
    talk = np.zeros(times.size)
    for start_s, end_s in scene.turns_of(i):
        talk[(times >= start_s) & (times < end_s)] = 1.0
    flap = talk * (0.5 + 0.5 * np.sin(2 * np.pi * 4.1 * times + rng.uniform(0, 6)))
    blink = np.ones(times.size)
    at_s = float(rng.uniform(0, 3))
    while at_s < scene.seconds:
        blink[np.abs(times - at_s) < 0.07] = 0.1
        at_s += float(rng.uniform(1.5, 5))
    expression = np.stack(
        [
            1.35 * valence + actor.looks.rest_smile,
            0.12 + 0.28 * arousal + 0.3 * flap,
            1.2 * valence + 0.15 * wander(0.5),
            blink * (0.62 + 0.38 * arousal + actor.looks.rest_eyes),
            0.3 * wander(0.4),
            0.2 * wander(0.4),
            0.3 * wander(0.8),
            0.3 * wander(0.8),
        ],
        axis=1,
    )
    narrow = 0.4 if len(scene.actors) > 1 else 1.0
    x = actor.place[0] + 22 * narrow * wander(1.5)
    y = actor.place[1] + 8 * wander(1.5)
    scale = 0.95 * np.exp(0.05 * wander(2.0))
    roll = 0.04 * wander(1.0)
    jitter = [0.4 * wander(0.3) + 0.2 * rng.standard_normal(times.size) for _ in range(2)]
    zoom, tilt = 0.01 * wander(0.5), 0.01 * wander(0.5)
    pose, seen = np.empty((times.size, 2, 3)), np.empty((times.size, 2, 3))
    for t in range(times.size):
        pose[t] = make_pose((x[t], y[t]), scale[t], roll[t])
        off = (x[t] + jitter[0][t], y[t] + jitter[1][t])
        seen[t] = make_pose(off, scale[t] * (1 + zoom[t]), roll[t] + tilt[t])
    return Shot(expression, pose, seen)


def draw_frame(scene: Scene, shots: list[Shot], t: int, away: Bool[np.ndarray, "tracks"]) -> Image:
    """Frame `t`: the room with its people; those `away` show the back of their heads."""
    image = scene.background.copy()
    for i, (actor, shot) in enumerate(zip(scene.actors, shots)):
        if away[i]:
            draw_back_of_head(image, actor.looks, shot.pose[t])
        else:
            draw_person(image, actor.looks, shot.pose[t], shot.face(t))
    return image
