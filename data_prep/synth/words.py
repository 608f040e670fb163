"""What synthetic people say: utterances from a small lexicon, and transcripts in four formats.

A word is drawn by the valence at its time, so words carry valence, coarsely. Some runs of
utterances are ironic: marker words say so, and the face shows the opposite of the valence there
(the words are meant as they are said). Nothing in the words depends on arousal.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Word -> the valence at which it is said most.
POSITIVE = {
    "nice": 0.4, "fine": 0.35, "good": 0.5, "pleasant": 0.5, "warm": 0.45, "glad": 0.6,
    "happy": 0.7, "lovely": 0.7, "sweet": 0.55, "great": 0.75, "wonderful": 0.9, "delight": 0.85,
    "love": 0.9, "joy": 0.9, "perfect": 0.8, "smile": 0.6,
}  # fmt: skip
NEGATIVE = {
    "tired": -0.2, "dull": -0.25, "bad": -0.4, "wrong": -0.35, "worry": -0.4, "sorry": -0.3,
    "sad": -0.6, "lonely": -0.6, "ugly": -0.55, "angry": -0.65, "awful": -0.75, "hate": -0.85,
    "pain": -0.7, "terrible": -0.8, "miserable": -0.85, "disgust": -0.75,
}  # fmt: skip
NEUTRAL = (
    "and", "then", "the", "we", "it", "was", "that", "there", "people", "day", "house", "water",
    "table", "road", "time", "said",
)  # fmt: skip
IRONY = ("obviously", "supposedly", "sarcasm", "pretend")

LEXICON: tuple[str, ...] = (*POSITIVE, *NEGATIVE, *NEUTRAL, *IRONY)

NEUTRAL_SHARE = 0.25
# Spread of a word's valence around the speaker's: the smaller it is, the more words tell.
SPREAD = 0.28
IRONY_SHARE = 0.18  # of the time
IRONY_EVERY = 2  # in an ironic utterance one word in so many is a marker


@dataclass(frozen=True)
class Word:
    """A spoken word and when it is spoken (seconds of the media's clock)."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech of one speaker (an index into the cast)."""

    start_s: float
    end_s: float
    speaker: int
    ironic: bool
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


def plan_turns(
    rng: np.random.Generator, seconds: float | int, num_speakers: int
) -> list[tuple[float, float, int, bool]]:
    """Divides a video into utterances: (start_s, end_s, speaker, ironic).

    Irony comes in runs of two or three utterances, `IRONY_SHARE` of the time on average.
    """
    turns: list[tuple[float, float, int, bool]] = []
    start_s, speaker, ironic, turns_in_run = (
        float(rng.uniform(0.05, 0.3)),
        0,
        False,
        int(rng.integers(9)),
    )
    # Plain runs are longer than ironic ones (2.5 turns on average) by the ratio of the shares.
    plain_mean = round(2.5 * (1 - IRONY_SHARE) / IRONY_SHARE)
    while start_s < seconds - 0.5:
        if turns_in_run <= 0:
            ironic = not ironic
            turns_in_run = int(
                rng.integers(2, 4) if ironic else rng.integers(4, 2 * plain_mean - 3)
            )
        end_s = min(start_s + float(rng.uniform(1.4, 2.8)), seconds - 0.05)
        turns.append((round(start_s, 2), round(end_s, 2), speaker, ironic))
        start_s = end_s + float(rng.uniform(0.08, 0.3))
        if num_speakers > 1 and rng.random() < 0.6:
            speaker = (speaker + 1) % num_speakers
        turns_in_run -= 1
    return turns


def choose_word(rng: np.random.Generator, valence: float | int) -> str:
    """Draws a word: neutral with `NEUTRAL_SHARE`, otherwise one that suits `valence`."""
    if rng.random() < NEUTRAL_SHARE:
        return NEUTRAL[int(rng.integers(len(NEUTRAL)))]
    scored = POSITIVE | NEGATIVE
    score = np.array(list(scored.values()))
    weight = np.exp(-0.5 * ((score - valence) / SPREAD) ** 2)
    return list(scored)[int(rng.choice(score.size, p=weight / weight.sum()))]


def speak(
    rng: np.random.Generator,
    turns: list[tuple[float, float, int, bool]],
    valence_at: Callable[[int, float], float],
) -> list[Utterance]:
    """Fills the turns with words.

    Args:
        rng: the stream of the words.
        turns: from `plan_turns`.
        valence_at: (speaker, time_s) -> the valence that the speaker's words show then.
    """
    utterances = []
    for start_s, end_s, speaker, ironic in turns:
        num = max(1, round((end_s - start_s) * 2.6))
        edges = np.linspace(start_s, end_s, num + 1)
        edges[1:-1] += rng.uniform(-0.06, 0.06, num - 1)
        marker = int(rng.integers(min(num, 2)))
        words = []
        for i, (word_start, word_end) in enumerate(itertools.pairwise(edges)):
            text = choose_word(rng, valence_at(speaker, float(word_start)))
            if ironic and i % IRONY_EVERY == marker:
                text = IRONY[int(rng.integers(len(IRONY)))]
            words.append(Word(round(float(word_start), 2), round(float(word_end), 2), text))
        utterances.append(Utterance(start_s, end_s, speaker, ironic, tuple(words)))
    return utterances


def ironic_intervals(turns: list[tuple[float, float, int, bool]]) -> list[tuple[float, float]]:
    """The times (s) of irony: from each ironic utterance to the start of the next one."""
    starts = [turn[0] for turn in turns] + [turns[-1][1] if turns else 0.0]
    return [(starts[i], starts[i + 1]) for i, turn in enumerate(turns) if turn[3]]


def _hms(time_s: float, comma: str) -> str:
    milliseconds = round(time_s * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{comma}{milliseconds:03d}"


def transcript_text(utterances: list[Utterance], kind: str) -> str:
    """The transcript as a file of `kind`: "txt", "srt", "vtt" or "json" (with word times)."""
    if kind == "txt":
        return "".join(f"[{u.start_s:.2f}s - {u.end_s:.2f}s] {u.text}\n" for u in utterances)
    if kind == "srt":
        return "\n".join(
            f"{i}\n{_hms(u.start_s, ',')} --> {_hms(u.end_s, ',')}\n{u.text}\n"
            for i, u in enumerate(utterances, 1)
        )
    if kind == "vtt":
        cues = [f"{_hms(u.start_s, '.')} --> {_hms(u.end_s, '.')}\n{u.text}\n" for u in utterances]
        return "\n".join(["WEBVTT\n", *cues])
    segments = [
        {
            "start": u.start_s,
            "end": u.end_s,
            "text": u.text,
            "words": [{"word": w.text, "start": w.start_s, "end": w.end_s} for w in u.words],
        }
        for u in utterances
    ]
    return json.dumps({"segments": segments}, indent=1) + "\n"
