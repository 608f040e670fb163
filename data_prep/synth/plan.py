"""The cast of a synthetic corpus: who is in which video, at which rate, with which blemishes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data_prep.synth.curves import generator

SPLITS = ("train", "validation", "test")
# Two thirds at 30 fps, as in Aff-Wild2; 0 stands for a variable rate.
RATES = (30.0, 25.0, 30.0, 0.0, 30.0, 12.5)
TRANSCRIPT_KINDS = ("txt", "txt", "json", "txt", "srt", "vtt")
FULL_CAST = 12  # a corpus of at least this many videos has every kind of blemish


@dataclass(frozen=True)
class CastMember:
    """One person in a video, which Aff-Wild2 counts as a video of its own.

    Attributes:
        name: of its annotation and crops.
        person: number of the person; a person is in one split only.
        extra_lines: of the annotation over the frames of the video (negative: fewer).
        unlabelled: share of the annotation's rows that are -5.
        faceless_runs: number of runs of frames without a face.
        faceless_first: whether one of these is at the very start.
        offsets: how far people differ from each other in what they show at rest; 1 as a rule.
    """

    name: str
    person: int
    extra_lines: int = 0
    unlabelled: float = 0.0
    faceless_runs: int = 0
    faceless_first: bool = False
    offsets: float = 1.0


@dataclass(frozen=True)
class Media:
    """One recorded video: one or two people in one picture and one sound.

    Attributes:
        stem: file name without suffix.
        split: "train", "validation" or "test".
        folder: of the mp4, below videos/.
        fps: frames a second; 0 for a variable rate.
        sound: whether there is any.
        wav_hz: sample rate of the WAV, 0 if there is none (sound is in the mp4 only).
        transcript: kind of its file, "" if there is none.
        cast: one person, or two for a pair.
    """

    stem: str
    split: str
    folder: str
    fps: float
    sound: bool
    wav_hz: int
    transcript: str
    cast: tuple[CastMember, ...]


def split_sizes(videos: int) -> dict[str, int]:
    """60/25/15 of `videos`, with a test video from 8 videos on and a validation video from 2 on."""
    test = max(1, round(0.15 * videos)) if videos >= 8 else 0
    validation = max(1, round(0.25 * videos)) if videos >= 2 else 0
    return {"train": videos - validation - test, "validation": validation, "test": test}


def plan_corpus(videos: int, seed: int, offsets: float = 1.0) -> list[Media]:
    """Draws who is in which video, `videos` faces in all.

    A longer corpus does not begin with a shorter one. The blemishes that cost a modality (pair, no
    transcript, no sound) are in training videos, so that even the validation score of a few dozen
    videos measures the model.
    """
    rng = generator(seed, "plan")
    media: list[Media] = []
    numbers = [int(n) for n in rng.permutation(np.arange(1, 2 * videos + 12))]
    rates = _deal(rng, RATES, videos)
    kinds = _deal(rng, TRANSCRIPT_KINDS, videos)
    person = 0
    for split, size in split_sizes(videos).items():
        remaining = size
        # Pairs, videos without words and videos without sound: one of each per 24 videos.
        pairs = -(-videos // 24) if split == "train" and size >= 4 else 0
        mute = -(-videos // 24) if split == "train" and size >= 5 else 0
        silent = -(-videos // 24) if split == "train" and size >= 6 else 0
        people: list[int] = []
        while remaining > 0:
            is_pair = pairs > 0 and remaining >= 2
            people_here = []
            for _ in range(2 if is_pair else 1):
                # A person in three appears a second time, in another video of the split.
                if people and not is_pair and rng.random() < 0.33:
                    people_here.append(people[int(rng.integers(len(people)))])
                else:
                    people_here.append(person)
                    people.append(person)
                    person += 1
            fps, kind = rates.pop(), kinds.pop()
            takes_words = not is_pair and mute > 0
            takes_sound = not is_pair and not takes_words and silent > 0
            stem = _stem(rng, numbers.pop(), fps)
            media.append(
                Media(
                    stem=stem,
                    split=split,
                    folder=("batch1", "batch2", "batch2/extra")[int(rng.integers(3))],
                    fps=fps,
                    sound=not takes_sound,
                    wav_hz=0 if takes_sound else int(rng.choice([16000, 16000, 44100, 0])),
                    transcript="" if takes_words else kind,
                    cast=_cast(rng, stem, people_here, split),
                )
            )
            pairs, mute, silent = pairs - is_pair, mute - takes_words, silent - takes_sound
            remaining -= len(people_here)
    media = _with_every_blemish(media) if videos >= FULL_CAST else media
    return [
        replace(m, cast=tuple(replace(member, offsets=offsets) for member in m.cast)) for m in media
    ]


def _deal(rng: np.random.Generator, choices: tuple, num: int) -> list:
    """`num` of `choices`, each as often as it is listed, in random order."""
    repeated = list(choices) * (num // len(choices) + 1)
    return [repeated[int(i)] for i in rng.permutation(num)]


def _stem(rng: np.random.Generator, number: int, fps: float) -> str:
    """A name of Aff-Wild2's form; the frame rate in it is wrong now and then."""
    if rng.random() < 0.25:
        return f"video{number}"
    claimed = round(fps) if fps and rng.random() < 0.8 else 30
    return f"{number}-{claimed}-320x240"


def _cast(
    rng: np.random.Generator, stem: str, people: list[int], split: str
) -> tuple[CastMember, ...]:
    names = [stem] if len(people) == 1 else [f"{stem}_left", f"{stem}_right"]
    cast = []
    for name, person in zip(names, people):
        annotated = split != "test"
        kind = int(rng.integers(4))
        extra = {0: int(rng.integers(1, 6)), 1: -int(rng.integers(1, 6))}.get(kind, 0)
        cast.append(
            CastMember(
                name=name,
                person=person,
                extra_lines=extra if annotated else 0,
                unlabelled=float(rng.uniform(0.002, 0.01)) * (annotated and rng.random() < 0.8),
                faceless_runs=int(rng.integers(0, 4)),
                faceless_first=bool(rng.random() < 0.2),
            )
        )
    return tuple(cast)


def _with_every_blemish(media: list[Media]) -> list[Media]:
    """Makes sure that every blemish drawn by chance occurs at least once."""
    single = [i for i, m in enumerate(media) if len(m.cast) == 1 and m.split == "train"]
    changes: list[dict] = [
        {"extra_lines": 3, "unlabelled": 0.008},
        {"extra_lines": -2, "faceless_runs": 3, "faceless_first": True},
    ]
    for i, change in zip(single, changes):
        media[i] = replace(media[i], cast=(replace(media[i].cast[0], **change),))
    if all(m.wav_hz for m in media if m.sound):  # sound that is in the mp4 only
        last = next(i for i in reversed(single) if media[i].sound)
        media[last] = replace(media[last], wav_hz=0)
    return media
