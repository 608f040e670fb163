"""Timed transcripts: txt (`[0.00s - 2.50s] words …`), subtitles, tables, JSON, TextGrid."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from maven_jax.media.problems import NOTE, REPAIRED, Fix, InputError, printable, read_text
from maven_jax.media.segments import Cues, Segment, Word
from maven_jax.media.subtitles import CLOCK, read_cues, seconds
from maven_jax.media.textgrid import read_textgrid
from maven_jax.media.transcript_json import read_json

__all__ = [
    "Segment",
    "Transcript",
    "Word",
    "named_transcript",
    "parse_transcript",
    "read_transcript",
]

# The first one counts when a video has several: JSON may time every word, text times the fewest.
TRANSCRIPT_SUFFIXES = (".json", ".vtt", ".srt", ".tsv", ".textgrid", ".txt")
MAX_BYTES = 16 << 20

_ARROW = r"\s{0,20}(?:-->|->|-|–|—)\s{0,20}"
_TXT_LINE = re.compile(rf"\[\s{{0,20}}{CLOCK}{_ARROW}{CLOCK}\s{{0,20}}\]", re.ASCII)
# Whisper's: milliseconds.
_TSV_HEADER, _TSV_LINE = "start\tend\ttext", re.compile(r"(\d{1,12})\t(\d{1,12})\t(.*)")


@dataclass(frozen=True)
class Transcript:
    """A transcript's segments by start time, and what was odd about the file."""

    segments: tuple[Segment, ...]
    fixes: list[Fix] = field(default_factory=list)


def _read_txt(cues: Cues, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        stripped, place = line.strip(), f"line {number}"
        if not stripped:
            continue
        match = _TXT_LINE.match(stripped)
        if match:
            start_s, end_s = seconds(match.groups()[:3]), seconds(match.groups()[3:])
            cues.add(place, start_s, end_s, stripped[match.end() :])
        else:
            shown = printable(stripped, 40)
            cues.fault(place, f"expected `[0.00s - 2.50s] words`, found {shown!r}")


def _read_tsv(cues: Cues, text: str) -> None:
    header, *lines = text.split("\n")
    if header.strip() != _TSV_HEADER:
        shown = printable(header.strip(), 40)
        raise InputError(
            cues.path, "line 1", f"expected Whisper's start, end, text; found {shown!r}"
        )
    for number, line in enumerate(lines, 2):
        match = _TSV_LINE.fullmatch(line)
        if match:
            start_ms, end_ms, words = match.groups()
            cues.add(f"line {number}", int(start_ms) / 1000, int(end_ms) / 1000, words)
        elif line.strip():
            cues.fault(f"line {number}", "expected milliseconds, milliseconds and words")


def _ordered(placed: list[tuple[str, Segment]], fixes: list[Fix]) -> tuple[Segment, ...]:
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
    r"""Reads a transcript by its suffix and reports what was odd.

    * txt: lines `[0.00s - 2.50s] words`; times may have fields for minutes and hours.
    * srt, vtt: cues; tags (`<i>`, `<v Name>`, `{\an8}`), cue settings, NOTE, STYLE and REGION are
      left out. Of rolling captions each line counts once, with the times of its words.
    * tsv: Whisper's table.
    * json: see `transcript_json`.
    * TextGrid: Praat's, with a tier of words, as forced aligners write it.

    A faulty segment is left out and counted, if most are not faulty. Segments without text are
    dropped, segments out of order are sorted.

    Raises:
        InputError: (a UserError) names the file and the line (segment, for JSON).
    """
    path = Path(path)
    text, fixes = read_text(path, MAX_BYTES, "a transcript")
    cues = Cues(path, fixes=fixes)
    readers: dict[str, Callable[[], None]] = {
        ".txt": lambda: _read_txt(cues, text),
        ".srt": lambda: read_cues(cues, text, vtt=False),
        ".vtt": lambda: read_cues(cues, text, vtt=True),
        ".tsv": lambda: _read_tsv(cues, text),
        ".json": lambda: read_json(cues, text),
        ".textgrid": lambda: read_textgrid(cues, text),
    }
    if path.suffix.lower() not in readers:
        raise InputError(path, "", f"not a transcript: expected one of {', '.join(readers)}")
    readers[path.suffix.lower()]()
    cues.settle()
    placed = cues.placed
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


def named_transcript(folder: Path, stem: str) -> Path | None:
    """The first file by the order of `TRANSCRIPT_SUFFIXES` that has a name; None without any."""
    if not folder.is_dir():
        return None
    found = {p.suffix.lower(): p for p in sorted(folder.iterdir()) if p.stem == stem}
    return next((found[s] for s in TRANSCRIPT_SUFFIXES if s in found and found[s].is_file()), None)
