"""SubRip and WebVTT, with the rolling captions that YouTube makes by itself."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from itertools import pairwise

from maven_jax.media.problems import REPAIRED, Fix, InputError, printable
from maven_jax.media.segments import Cues, Word

CLOCK = r"(?:(\d{1,4}):)?(?:(\d{1,4}):)?(\d{1,9}(?:[.,]\d{1,9})?)\s{0,3}s?"
_CUE_LINE = re.compile(rf"{CLOCK}\s{{0,20}}-->\s{{0,20}}{CLOCK}(?:\s.*)?", re.ASCII)
_TAG = re.compile(r"<[^<>\n]{0,1000}>|\{\\[^{}\n]{0,1000}\}")
# The time of the word behind it: `<00:00:01.469>`.
_WORD_TIME = re.compile(r"<((?:\d{1,4}:)?\d{1,4}:\d{1,2}[.,]\d{1,9})>", re.ASCII)
_NO_CUE = re.compile(r"(NOTE|STYLE|REGION)\b")
# In YouTube's captions a cue of a hundredth of a second holds each line while it moves up.
_BLINK_S = 0.021
# A cue goes on from the one before if it begins so near its end, seconds.
_NEAR_S = 0.1


def seconds(groups: tuple[str | None, ...]) -> float:
    """`(hours, minutes, seconds)`; with one colon the first group holds the minutes."""
    first, second, last = groups
    hours, minutes = (first, second) if second is not None else (None, first)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float((last or "0").replace(",", "."))


@dataclass
class _Cue:
    """A cue as it stands in the file: its line, times and the lines of its text."""

    number: int
    start_s: float
    end_s: float
    lines: list[str]

    @property
    def place(self) -> str:
        return f"line {self.number}"

    def clean(self) -> list[str]:
        """The lines without tags."""
        return [" ".join(plain(line).split()) for line in self.lines]


def plain(line: str) -> str:
    """Text without tags and entities."""
    return html.unescape(_TAG.sub("", line)).replace("\\N", " ").replace("\\h", " ")


def read_cues(cues: Cues, text: str, *, vtt: bool) -> None:
    """Adds the cues of a SubRip or WebVTT file.

    A cue is a line of times and the text up to the next one; in WebVTT up to an empty line.

    Raises:
        InputError: no header of WebVTT.
    """
    lines = text.split("\n")
    if vtt and not re.match(r"WEBVTT(?:\s|$)", lines[0]):
        raise InputError(cues.path, "line 1", "expected the header WEBVTT")
    raw = _cues(cues, lines, vtt)
    if _is_rolling(raw):
        _add_rolling(cues, raw)
        return
    for cue in raw:
        cues.add(cue.place, cue.start_s, cue.end_s, " ".join(map(plain, cue.lines)))


def _cues(cues: Cues, lines: list[str], vtt: bool) -> list[_Cue]:
    """The cues; those without usable times are faults."""
    times = [i for i, line in enumerate(lines) if "-->" in line and not _in_note(lines, i, vtt)]
    _check_stray(cues, lines[: times[0] if times else len(lines)], 0, vtt, first=True)
    raw = []
    for at, end in zip(times, [*times[1:], len(lines)]):
        body = lines[at + 1 : end]
        if end < len(lines):
            body = _without_name(body)
        if vtt:
            stop = next((i for i, line in enumerate(body) if not line), len(body))
            _check_stray(cues, body[stop:], at + 1 + stop, vtt, first=False)
            body = body[:stop]
        match = _CUE_LINE.fullmatch(lines[at].strip())
        if match is None:
            shown = printable(lines[at].strip(), 60)
            cues.fault(f"line {at + 1}", f"expected `start --> end`, found {shown!r}")
            continue
        groups = match.groups()
        kept = [line for line in body if line.strip()]
        raw.append(_Cue(at + 1, seconds(groups[:3]), seconds(groups[3:]), kept))
    return raw


def _in_note(lines: list[str], at: int, vtt: bool) -> bool:
    """Whether a line belongs to a comment of WebVTT, which may hold anything but an empty line."""
    while vtt and at > 0 and lines[at - 1].strip():
        at -= 1
        if "-->" in lines[at]:
            return False
    return vtt and bool(_NO_CUE.match(lines[at]))


def _without_name(body: list[str]) -> list[str]:
    """A cue's lines without the number, or the name behind an empty line, of the next cue."""
    if body and (body[-1].strip().isdigit() or (len(body) > 1 and not body[-2].strip())):
        return body[:-1]
    return body


def _check_stray(cues: Cues, lines: list[str], before: int, vtt: bool, *, first: bool) -> None:
    """Counts text that no line of times goes before."""
    blocks = re.split(r"\n\s*\n", "\n".join(lines))
    number = before + 1
    for i, block in enumerate(blocks):
        here = number + len(block) - len(block.lstrip("\n"))
        number += block.count("\n") + 2
        content = block.strip()
        header = first and i == 0 and vtt
        last = first and i == len(blocks) - 1
        named = last and "\n" not in content and (content.isdigit() or vtt)
        if not content or header or _NO_CUE.match(content) or content.isdigit() or named:
            continue
        shown = printable(content.split("\n")[0].strip(), 40)
        cues.fault(f"line {here}", f"text without a line of times `start --> end`: {shown!r}")


def _is_rolling(raw: list[_Cue]) -> bool:
    """Whether each line is shown twice or more while it moves up the screen."""
    if any(_WORD_TIME.search(line) and "<c" in line for cue in raw for line in cue.lines):
        return True
    texts = [cue.clean() for cue in raw]
    near = [b.start_s < a.end_s + _NEAR_S for a, b in pairwise(raw)]
    moved = [bool(a and b and n) and a[-1] == b[0] for (a, b), n in zip(pairwise(texts), near)]
    grown = sum(m and len(b) > 1 for m, b in zip(moved, texts[1:]))
    blinks = sum(m and c.end_s - c.start_s < _BLINK_S for m, c in zip(moved, raw[1:]))
    return grown > 0 and (blinks > 0 or 2 * sum(moved) > len(moved) > 1)


def _add_rolling(cues: Cues, raw: list[_Cue]) -> None:
    """Adds each line once, when it is new, with the times of its words if it has them."""
    shown: list[str] = []
    until_s, repeated = 0.0, 0
    for cue in raw:
        texts = cue.clean()
        old = 0
        if cue.start_s < until_s + _NEAR_S:
            most = min(len(shown), len(texts))
            old = next((k for k in range(most, 0, -1) if shown[-k:] == texts[:k]), 0)
        repeated += old
        shown, until_s = texts, cue.end_s
        new = cue.lines[old:]
        if not new:
            continue
        words = _timed_words(" ".join(new), cue.start_s, cue.end_s)
        cues.add(cue.place, cue.start_s, cue.end_s, " ".join(texts[old:]), words)
    if repeated:
        rule = "lines of rolling captions that were shown before count once"
        cues.fixes.append(Fix(REPAIRED, raw[0].place, f"{repeated} {rule}"))


def _timed_words(line: str, start_s: float, end_s: float) -> tuple[Word, ...]:
    """The words of a line in which each begins at a time of its own; none without such times."""
    first, *rest = _WORD_TIME.split(line)
    if not rest:
        return ()
    marks = [_CUE_LINE.fullmatch(f"{time} --> {time}") for time in rest[::2]]
    starts = [start_s, *(seconds(mark.groups()[:3]) for mark in marks if mark)]
    texts = [" ".join(plain(text).split()) for text in (first, *rest[1::2])]
    if sorted(starts) != starts or len(starts) != len(texts) or starts[-1] > end_s:
        return ()
    ends = [*starts[1:], end_s]
    return tuple(Word(s, e, text) for s, e, text in zip(starts, ends, texts) if text)
