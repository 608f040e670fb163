"""Transcripts in JSON: Whisper and its relatives, Hugging Face pipelines, word lists, Vosk.

| written by | segments | times | words |
|---|---|---|---|
| Whisper, WhisperX, faster-whisper | `segments` (or the list itself) | `start`, `end` | `word` |
| whisper-timestamped | the same | the same | `text` |
| OpenAI's verbose_json | the same; a list `words` beside it, or alone | the same | `word` |
| whisper.cpp | `transcription` | `offsets`, in ms | `tokens` (`-ojf`) |
| Hugging Face pipelines | `chunks` | `timestamp`: [start, end or null] | chunks of one word |
| Vosk | `result` | `start`, `end` | `word` |
| Deepgram, Amazon Transcribe, Google | `results` | of words only | `word`; `content` |
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from maven_jax.media.problems import REPAIRED, Fix, InputError, printable
from maven_jax.media.segments import MAX_SEGMENTS, Cues, Word, checked

# Halves of characters, which JSON can name one by one and no encoding can write.
_SURROGATE = re.compile("[\ud800-\udfff]")
# How fast people speak, where nothing tells a segment's end.
_CHARS_PER_S = 15.0
# Of a word.
_MOST_CHARS = 1000
# If most words last longer, their times are milliseconds, as AssemblyAI writes them.
_LONGEST_WORD_S = 20.0
_SECONDS = re.compile(r"(\d{1,12}(?:\.\d{0,12})?)s?", re.ASCII)
_EXPECTED = (
    "expected a list of {start, end, text}, or an object with such a list: segments, chunks, "
    "transcription, words, result or results"
)


def read_json(cues: Cues, text: str) -> None:
    """Adds the segments of a file.

    Raises:
        InputError: not JSON, or none of these forms.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(cues.path, f"line {error.lineno}", f"not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise InputError(cues.path, "", f"not usable JSON: {printable(str(error))}") from None
    if isinstance(data, list):
        data = {"segments": data}
    if not isinstance(data, dict):
        raise InputError(cues.path, "", _EXPECTED)
    if (words := _of_services(data.get("results"))) is not None:
        data = {"words": words}
    key = next((k for k in ("segments", "transcription", "chunks") if data.get(k)), None)
    if key is None:
        key = next((k for k in ("segments", "words", "result", "chunks") if k in data), None)
    items = data.get(key) if key else None
    if key is None or not isinstance(items, list):
        raise InputError(cues.path, "", _EXPECTED)
    if len(items) > MAX_SEGMENTS:
        raise InputError(cues.path, "", f"{len(items):,} segments are too many")
    if key == "chunks":
        _read_chunks(cues, items, data.get("duration"))
    elif key == "transcription":
        _read_whisper_cpp(cues, items)
    elif key in ("words", "result") or _are_words(items):
        cues.add_words(_words(cues, "", items))
    else:
        beside = data.get("words")
        words = _words(cues, "", beside) if isinstance(beside, list) else []
        _read_segments(cues, items, words)


def _of_services(results: Any) -> list[Any] | None:
    """The words of Deepgram, Amazon Transcribe or Google; None if it is none of them."""
    words: list[dict[str, Any]] = []
    if isinstance(results, list):  # Google's: utterances
        spoken = [_at(result, "alternatives", 0, "words") for result in results]
        if not any(isinstance(part, list) for part in spoken):
            return None
        for item in (item for part in spoken if isinstance(part, list) for item in part):
            start, end = (
                _at(item, f"{key}Time") or _at(item, f"{key}Offset") for key in ("start", "end")
            )
            words.append({"word": _at(item, "word"), "start": _parsed(start), "end": _parsed(end)})
        return words
    if isinstance(items := _at(results, "channels", 0, "alternatives", 0, "words"), list):
        return [
            {**item, "word": item.get("punctuated_word", item.get("word"))}
            for item in items
            if isinstance(item, dict)
        ]
    if not isinstance(items := _at(results, "items"), list):
        return None
    for item in items:  # Amazon's: words and punctuation
        content = _at(item, "alternatives", 0, "content")
        if _at(item, "type") != "punctuation":
            start, end = (_parsed(_at(item, key)) for key in ("start_time", "end_time"))
            words.append({"word": content, "start": start, "end": end})
        elif words and isinstance(content, str) and isinstance(words[-1]["word"], str):
            words[-1]["word"] += content
    return words


def _at(value: Any, *path: str | int) -> Any:
    """What lies there; None if the path ends before."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def _parsed(value: Any) -> Any:
    """A time that is written as text, such as "1.5s", as a number; anything else as it is."""
    match = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) if match else value


def _are_words(items: list[Any]) -> bool:
    """Whether a list is one of words: they have no text and no words of their own."""
    return bool(items) and all(
        isinstance(item, dict) and isinstance(item.get("word"), str) and "text" not in item
        for item in items
    )


def _number(value: Any, key: str) -> float:
    """A time. Raises ValueError with what is wrong."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        given = "nothing" if value is None else printable(repr(value), 40)
        raise ValueError(f"{key!r} must be a number of seconds, found {given}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _text(cues: Cues, place: str, value: str) -> str:
    """The text with the sign for "no character" in place of halves of characters."""
    text, count = _SURROGATE.subn("\ufffd", value)
    if count:
        rule = f"{count} lone surrogates (halves of characters) replaced"
        cues.fixes.append(Fix(REPAIRED, place, rule))
    return text


def _word(cues: Cues, place: str, item: Any) -> Word | None:
    """A word; None if it has no times.

    Raises:
        InputError: it is none, or its times cannot be.
    """
    text = item.get("word", item.get("text")) if isinstance(item, dict) else None
    if not isinstance(text, str):
        raise InputError(cues.path, place, "expected {start, end, word}")
    if item.get("start") is None or item.get("end") is None:
        return None
    try:
        start_s, end_s = (_number(item[key], key) for key in ("start", "end"))
    except ValueError as error:
        raise InputError(cues.path, place, str(error)) from None
    one = checked(cues.path, place, start_s, end_s, _text(cues, place, text))
    return Word(one.start_s, one.end_s, one.text)


def _words(cues: Cues, where: str, items: list[Any]) -> list[tuple[str, Word]]:
    """The words of a list with their places; faulty ones are left out."""
    words = []
    for number, item in enumerate(items, 1):
        place = f"{where} word {number}".strip()
        try:
            word = _word(cues, place, item)
        except InputError as error:
            cues.faults.append(error)
            continue
        if word is None:
            cues.fault(place, "a word without times")
        elif word.text:
            words.append((place, word))
    lengths_s = sorted(word.end_s - word.start_s for _, word in words)
    if lengths_s and lengths_s[len(words) // 2] > _LONGEST_WORD_S:
        cues.fixes.append(Fix(REPAIRED, where, "times of words taken for milliseconds"))
        words = [(at, Word(w.start_s / 1000, w.end_s / 1000, w.text)) for at, w in words]
    return words


def _own_words(cues: Cues, place: str, value: Any) -> tuple[Word, ...]:
    """The words of a segment; none if one of them has no times.

    Raises:
        InputError: a word is faulty.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(cues.path, place, "'words' must be a list")
    words = []
    for number, item in enumerate(value, 1):
        at = f"{place} word {number}"
        word = _word(cues, at, item)
        if word is None:
            # Aligners leave out what they could not place (numbers, mostly).
            rule = "a word without times: only the segment's times are used"
            cues.fixes.append(Fix(REPAIRED, at, rule))
            return ()
        words.append(word)
    return tuple(sorted(words, key=lambda w: (w.start_s, w.end_s)))


def _read_segments(cues: Cues, items: list[Any], beside: list[tuple[str, Word]]) -> None:
    """Segments with times of their own; `beside` are the words of all of them."""
    for number, item in enumerate(items, 1):
        place = f"segment {number}"
        if not isinstance(item, dict):
            cues.fault(place, "expected {start, end, text}")
            continue
        body = item.get("text", "")
        if not isinstance(body, str):
            cues.fault(place, "'text' must be a string")
            continue
        try:
            start_s, end_s = (_number(item.get(key), key) for key in ("start", "end"))
            words = _own_words(cues, place, item.get("words"))
        except InputError as error:
            cues.faults.append(error)
            continue
        except ValueError as error:
            cues.fault(place, str(error))
            continue
        if not words:
            middle = [(w, (w.start_s + w.end_s) / 2) for _, w in beside]
            words = tuple(w for w, at in middle if start_s <= at < end_s)
        body = _text(cues, place, body) or " ".join(word.text for word in words)
        cues.add(place, start_s, end_s, body, words)


def _read_chunks(cues: Cues, items: list[Any], duration: Any) -> None:
    """A Hugging Face pipeline's; the end of the last one may be null."""
    read: list[tuple[str, float, float | None, str]] = []
    for number, item in enumerate(items, 1):
        place = f"chunk {number}"
        times = item.get("timestamp") if isinstance(item, dict) else None
        body = item.get("text") if isinstance(item, dict) else None
        if not isinstance(times, list) or len(times) != 2 or not isinstance(body, str):
            cues.fault(place, "expected {timestamp: [start, end], text}")
            continue
        try:
            start_s = _number(times[0], "start")
            end_s = None if times[1] is None else _number(times[1], "end")
        except ValueError as error:
            cues.fault(place, str(error))
            continue
        read.append((place, start_s, end_s, _text(cues, place, body)))
    segments = []
    for i, (place, start_s, end_s, body) in enumerate(read):
        if end_s is None:
            end_s, rule = start_s + len(body.split() and body.strip()) / _CHARS_PER_S, "its length"
            if i + 1 < len(read):
                end_s, rule = max(read[i + 1][1], start_s), "the next one's start"
            elif isinstance(duration, int | float) and duration > start_s:
                end_s, rule = float(duration), "the duration"
            message = f"no end: {end_s:.2f} s by {rule}"
            cues.fixes.append(Fix(REPAIRED, place, message))
        segments.append((place, start_s, end_s, body))
    if len(segments) > 1 and all(len(body.split()) <= 1 for *_, body in segments):
        cues.add_single_words(segments)
        return
    for place, start_s, end_s, body in segments:
        cues.add(place, start_s, end_s, body)


def _offsets_s(item: Any) -> tuple[float, float]:
    """Start and end of what whisper.cpp times in milliseconds. Raises ValueError without them."""
    offsets = item.get("offsets") if isinstance(item, dict) else None
    if not isinstance(offsets, dict):
        raise ValueError("expected {offsets: {from, to}, text}")
    start_ms, end_ms = (_number(offsets.get(key), key) for key in ("from", "to"))
    return start_ms / 1000, end_ms / 1000


def _read_whisper_cpp(cues: Cues, items: list[Any]) -> None:
    for number, item in enumerate(items, 1):
        place = f"segment {number}"
        try:
            start_s, end_s = _offsets_s(item)
        except ValueError as error:
            cues.fault(place, str(error))
            continue
        body = item.get("text", "")
        if not isinstance(body, str):
            cues.fault(place, "'text' must be a string")
            continue
        words = _joined_tokens(item.get("tokens"))
        cues.add(place, start_s, end_s, _text(cues, place, body), words)


def _joined_tokens(tokens: Any) -> tuple[Word, ...]:
    """Words from pieces of words; a piece that begins a word begins with a space."""
    words: list[Word] = []
    for token in tokens if isinstance(tokens, list) else ():
        text = token.get("text") if isinstance(token, dict) else None
        if not isinstance(text, str) or text.startswith("[_") or not text.strip():
            continue
        try:
            start_s, end_s = _offsets_s(token)
        except ValueError:
            return ()
        if words and not text.startswith(" "):
            start_s, text = words[-1].start_s, words.pop().text + text
        if not 0 <= start_s <= end_s < math.inf or len(text) > _MOST_CHARS:
            return ()
        words.append(Word(start_s, end_s, text.strip()))
    return tuple(words)
