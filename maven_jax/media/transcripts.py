"""Timed transcripts: txt (`[0.00s - 2.50s] words …`), SubRip, WebVTT and Whisper's JSON."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from maven_jax.media.problems import NOTE, REPAIRED, Fix, InputError, printable, read_text

# The first one counts when a video has several.
TRANSCRIPT_SUFFIXES = (".json", ".vtt", ".srt", ".txt")
MAX_BYTES = 16 << 20
MAX_SEGMENTS = 200_000
MAX_SEGMENT_CHARS = 100_000
# Four days: a larger number means another unit (milliseconds).
MAX_TIME_S = 350_000.0

_CLOCK = r"(?:(\d{1,4}):)?(?:(\d{1,4}):)?(\d{1,9}(?:[.,]\d{1,9})?)\s{0,3}s?"
_ARROW = r"\s{0,20}(?:-->|->|-|–|—)\s{0,20}"
_TXT_LINE = re.compile(rf"\[\s{{0,20}}{_CLOCK}{_ARROW}{_CLOCK}\s{{0,20}}\]", re.ASCII)
_CUE_LINE = re.compile(rf"{_CLOCK}\s{{0,20}}-->\s{{0,20}}{_CLOCK}(?:\s.*)?", re.ASCII)
# Halves of characters, which JSON can name one by one and no encoding can write.
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG = re.compile(r"<[^<>\n]{0,1000}>")


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


@dataclass(frozen=True)
class Transcript:
    """A transcript's segments by start time, and what was odd about the file."""

    segments: tuple[Segment, ...]
    fixes: list[Fix] = field(default_factory=list)


# A segment and its place in the file.
_Placed = tuple[str, Segment]


def _seconds(groups: tuple[str | None, ...]) -> float:
    """`(hours, minutes, seconds)`; with one colon the first group holds the minutes."""
    first, second, seconds = groups
    hours, minutes = (first, second) if second is not None else (None, first)
    return (
        int(hours or 0) * 3600 + int(minutes or 0) * 60 + float((seconds or "0").replace(",", "."))
    )


def _segment(
    path: Path, place: str, start_s: float, end_s: float, text: str, words: tuple[Word, ...] = ()
) -> _Placed:
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
    return place, Segment(float(start_s), float(end_s), clean, words)


def _check_count(path: Path, count: int) -> None:
    if count > MAX_SEGMENTS:
        raise InputError(path, "", f"{count:,} segments are too many")


def _read_txt(path: Path, text: str) -> list[_Placed]:
    placed = []
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped:
            continue
        place = f"line {number}"
        match = _TXT_LINE.match(stripped)
        if not match:
            shown = printable(stripped, 40)
            raise InputError(path, place, f"expected `[0.00s - 2.50s] words`, found {shown!r}")
        start_s, end_s = _seconds(match.groups()[:3]), _seconds(match.groups()[3:])
        placed.append(_segment(path, place, start_s, end_s, stripped[match.end() :]))
        _check_count(path, len(placed))
    return placed


def _cue(path: Path, number: int, line: str, body: list[str]) -> _Placed:
    match = _CUE_LINE.fullmatch(line.strip())
    if not match:
        shown = printable(line.strip(), 60)
        raise InputError(path, f"line {number}", f"expected `start --> end`, found {shown!r}")
    text = html.unescape(_TAG.sub("", " ".join(body)))
    start_s, end_s = _seconds(match.groups()[:3]), _seconds(match.groups()[3:])
    return _segment(path, f"line {number}", start_s, end_s, text)


def _read_cues(path: Path, text: str, *, vtt: bool) -> list[_Placed]:
    """SubRip and WebVTT: blocks between blank lines, in each a line of times and then text."""
    lines = text.split("\n")
    if vtt and not re.match(r"WEBVTT(?:\s|$)", lines[0]):
        raise InputError(path, "line 1", "expected the header WEBVTT")
    placed: list[_Placed] = []
    i, first_block = 0, True
    while i < len(lines):
        if not lines[i].strip():
            i += 1
            continue
        end = i
        while end < len(lines) and lines[end].strip():
            end += 1
        block = lines[i:end]
        skipped = vtt and (first_block or re.match(r"(NOTE|STYLE|REGION)\b", block[0]))
        if not (skipped and "-->" not in block[0]):
            at = next((k for k, line in enumerate(block[:2]) if "-->" in line), None)
            if at is None:
                if not (len(block) == 1 and block[0].strip().isdigit()):  # an empty last cue
                    shown = printable(block[0].strip(), 40)
                    message = f"text without a line of times `start --> end`: {shown!r}"
                    raise InputError(path, f"line {i + 1}", message)
            else:
                placed.append(_cue(path, i + at + 1, block[at], block[at + 1 :]))
                _check_count(path, len(placed))
        i, first_block = end, False
    return placed


def _json_time(path: Path, place: str, item: dict[str, Any], key: str) -> float:
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        given = "nothing" if value is None else printable(repr(value), 40)
        raise InputError(path, place, f"{key!r} must be a number of seconds, found {given}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _json_text(place: str, value: str, fixes: list[Fix]) -> str:
    """The text with the sign for "no character" in place of halves of characters."""
    text, count = _SURROGATE.subn("\ufffd", value)
    if count:
        fixes.append(
            Fix(REPAIRED, place, f"{count} lone surrogates (halves of characters) replaced")
        )
    return text


def _json_words(path: Path, place: str, value: Any, fixes: list[Fix]) -> tuple[Word, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(path, place, "'words' must be a list")
    words = []
    for number, item in enumerate(value, 1):
        at = f"{place} word {number}"
        if not isinstance(item, dict) or not isinstance(item.get("word"), str):
            raise InputError(path, at, "expected {start, end, word}")
        if item.get("start") is None or item.get("end") is None:
            # Aligners leave out what they could not place (numbers, mostly).
            rule = "a word without times: only the segment's times are used"
            fixes.append(Fix(REPAIRED, at, rule))
            return ()
        start_s, end_s = (_json_time(path, at, item, key) for key in ("start", "end"))
        _, word = _segment(path, at, start_s, end_s, _json_text(at, item["word"], fixes))
        words.append(Word(word.start_s, word.end_s, word.text))
    return tuple(sorted(words, key=lambda w: (w.start_s, w.end_s)))


def _read_json(path: Path, text: str, fixes: list[Fix]) -> list[_Placed]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(path, f"line {error.lineno}", f"not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise InputError(path, "", f"not usable JSON: {printable(str(error))}") from None
    segments = data.get("segments") if isinstance(data, dict) else data
    if not isinstance(segments, list):
        message = "expected a list of {start, end, text} or an object with such a list, segments"
        raise InputError(path, "", message)
    _check_count(path, len(segments))
    placed = []
    for number, item in enumerate(segments, 1):
        place = f"segment {number}"
        if not isinstance(item, dict):
            raise InputError(path, place, "expected {start, end, text}")
        body = item.get("text", "")
        if not isinstance(body, str):
            raise InputError(path, place, "'text' must be a string")
        start_s, end_s = (_json_time(path, place, item, key) for key in ("start", "end"))
        words = _json_words(path, place, item.get("words"), fixes)
        body = _json_text(place, body, fixes) or " ".join(word.text for word in words)
        placed.append(_segment(path, place, start_s, end_s, body, words))
    return placed


def _ordered(placed: list[_Placed], fixes: list[Fix]) -> tuple[Segment, ...]:
    """Segments by start time; disorder and overlaps are reported once, at their first place."""
    disordered = [b[0] for a, b in pairwise(placed) if b[1].start_s < a[1].start_s]
    if disordered:
        count = f" ({len(disordered)} places)" if len(disordered) > 1 else ""
        fixes.append(Fix(REPAIRED, disordered[0], f"out of order: sorted by start time{count}"))
    placed = sorted(placed, key=lambda item: (item[1].start_s, item[1].end_s))
    overlaps, latest_s = [], -math.inf
    for place, segment in placed:
        if segment.start_s < latest_s - 1e-6:
            overlaps.append(place)
        latest_s = max(latest_s, segment.end_s)
    if overlaps:
        rule = "a frame belongs to the segment that began last"
        fixes.append(Fix(NOTE, overlaps[0], f"{len(overlaps)} overlapping segments: {rule}"))
    return tuple(segment for _, segment in placed)


def parse_transcript(path: Path) -> Transcript:
    """Reads a transcript by its suffix and reports what was odd.

    * txt: lines `[0.00s - 2.50s] words`; times may have fields for minutes and hours.
    * srt, vtt: cues; tags (`<i>`, `<v Name>`), cue settings, NOTE, STYLE and REGION are left out.
    * json: a list of {start, end, text, words: [{start, end, word}]}, or {"segments": [...]} as
      Whisper writes it; `words` is optional.

    Segments without text are dropped, segments out of order are sorted.

    Raises:
        InputError: (a UserError) names the file and the line (segment, for JSON).
    """
    path = Path(path)
    text, fixes = read_text(path, MAX_BYTES, "a transcript")
    readers: dict[str, Callable[[], list[_Placed]]] = {
        ".txt": lambda: _read_txt(path, text),
        ".srt": lambda: _read_cues(path, text, vtt=False),
        ".vtt": lambda: _read_cues(path, text, vtt=True),
        ".json": lambda: _read_json(path, text, fixes),
    }
    if path.suffix.lower() not in readers:
        raise InputError(path, "", f"not a transcript: expected one of {', '.join(readers)}")
    placed = readers[path.suffix.lower()]()
    silent = [place for place, segment in placed if not segment.text]
    if silent:
        fixes.append(Fix(NOTE, silent[0], f"{len(silent)} segments without words ignored"))
        placed = [item for item in placed if item[1].text]
    if not placed:
        fixes.append(Fix(NOTE, "", "no words"))
    return Transcript(_ordered(placed, fixes), fixes)


def read_transcript(path: Path) -> tuple[Segment, ...]:
    """The segments of a transcript, by start time; see `parse_transcript`."""
    return parse_transcript(path).segments
