"""What a transcript is made of, and how segments are gathered from a file that may be faulty."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from maven_jax.media.problems import REPAIRED, Fix, InputError

MAX_SEGMENTS = 200_000
MAX_SEGMENT_CHARS = 100_000
# Four days: a larger number means another unit (milliseconds).
MAX_TIME_S = 350_000.0
# Words without a sentence's end are cut where nobody speaks for so long, or after so many.
_PAUSE_S, _MOST_WORDS = 1.0, 40
_SENTENCE_ENDS = tuple(".?!。？！।")


@dataclass(frozen=True)
class Word:
    """A word with its own times, in seconds of the video's clock."""

    start_s: float | int
    end_s: float | int
    text: str


@dataclass(frozen=True)
class Segment:
    """A stretch of speech; `words` is empty if only the segment is timed."""

    start_s: float | int
    end_s: float | int
    text: str
    words: tuple[Word, ...] = ()


def checked(path: Path, place: str, start_s: float, end_s: float, text: str) -> Segment:
    """A segment or a word with times that can be.

    Raises:
        InputError: times that cannot be, or too much text.
    """
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise InputError(path, place, "a time is not a finite number")
    if start_s < 0 or end_s < 0:
        raise InputError(path, place, f"negative time {min(start_s, end_s):g} s")
    if max(start_s, end_s) > MAX_TIME_S:
        message = f"{max(start_s, end_s):g} s is no time within a video (milliseconds?)"
        raise InputError(path, place, message)
    if end_s < start_s:
        raise InputError(path, place, f"reversed times: ends at {end_s:g} s, before {start_s:g} s")
    if len(text) > MAX_SEGMENT_CHARS:
        raise InputError(path, place, f"{len(text):,} characters are too many for a segment")
    clean = " ".join(text.replace("\0", " ").split())
    return Segment(float(start_s), float(end_s), clean)


@dataclass
class Cues:
    """Segments of a file as they are read; a faulty one costs itself.

    Attributes:
        path: the file.
        placed: each segment with its place in the file.
        fixes: what was odd.
        faults: of the segments that are left out.
    """

    path: Path
    placed: list[tuple[str, Segment]] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    faults: list[InputError] = field(default_factory=list)

    def add(
        self, place: str, start_s: float, end_s: float, text: str, words: tuple[Word, ...] = ()
    ) -> None:
        """Adds a segment, or its fault. Raises InputError if there are too many."""
        if len(self.placed) >= MAX_SEGMENTS:
            raise InputError(self.path, "", f"{len(self.placed) + 1:,} segments are too many")
        try:
            segment = checked(self.path, place, start_s, end_s, text)
        except InputError as error:
            self.faults.append(error)
            return
        segment = Segment(segment.start_s, segment.end_s, segment.text, words)
        self.placed.append((place, segment))

    def fault(self, place: str, message: str) -> None:
        """Leaves a segment out."""
        self.faults.append(InputError(self.path, place, message))

    def add_words(self, words: list[tuple[str, Word]]) -> None:
        """Adds words that no segment holds, sentence by sentence.

        Args:
            words: each with its place in the file.
        """
        sentence: list[tuple[str, Word]] = []
        for place, word in sorted(words, key=lambda item: (item[1].start_s, item[1].end_s)):
            if sentence:
                last = sentence[-1][1]
                pause = word.start_s - last.end_s > _PAUSE_S or len(sentence) >= _MOST_WORDS
                if pause or last.text.endswith(_SENTENCE_ENDS):
                    self._add_sentence(sentence)
                    sentence = []
            sentence.append((place, word))
        if sentence:
            self._add_sentence(sentence)

    def add_single_words(self, items: list[tuple[str, float, float, str]]) -> None:
        """As `add_words`, of (place, start, end, text) that may be faulty or empty."""
        words = []
        for place, start_s, end_s, text in items:
            try:
                one = checked(self.path, place, start_s, end_s, text)
            except InputError as error:
                self.faults.append(error)
                continue
            if one.text:
                words.append((place, Word(one.start_s, one.end_s, one.text)))
        self.add_words(words)

    def _add_sentence(self, sentence: list[tuple[str, Word]]) -> None:
        words = tuple(word for _, word in sentence)
        end_s = max(word.end_s for word in words)
        text = " ".join(word.text for word in words)
        self.add(sentence[0][0], words[0].start_s, end_s, text, words)

    def settle(self) -> None:
        """Counts the faults.

        Raises:
            InputError: the first one, if most segments are faulty: the file is something else.
        """
        if not self.faults:
            return
        first, count = self.faults[0], len(self.faults)
        if count > len(self.placed):
            others = f" (and {count - 1} more)" if count > 1 else ""
            raise InputError(self.path, first.place, first.message + others)
        message = f"{count} segments left out: {first.message}"
        self.fixes.append(Fix(REPAIRED, first.place, message))
