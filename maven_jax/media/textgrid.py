"""Timed words from Praat's TextGrid, as forced aligners (MFA, WebMAUS) write them."""

from __future__ import annotations

import re

from maven_jax.errors import listing
from maven_jax.media.problems import InputError, printable
from maven_jax.media.segments import Cues

# Numbers and texts that stand free count; the words around them explain them.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_NUMBER = re.compile(r"[-+]?\d{1,15}(?:\.\d{0,20})?(?:[eE][-+]?\d{1,3})?", re.ASCII)
# What aligners write where nobody speaks, or where they know no word.
_NO_WORD = {"", "sil", "sp", "spn", "<eps>", "<p:>", "<unk>", "<sil>"}

_Intervals = list[tuple[str, float, float, str]]


def read_textgrid(cues: Cues, text: str) -> None:
    """Adds the intervals of the tier of words; the file's long and short form are the same here.

    It is the tier that has `word` in its name, or the only one with intervals.

    Raises:
        InputError: another kind of file, or no tier or several that may be meant.
    """
    values: list[str | float] = []
    for quoted, bare in _TOKEN.findall(text):
        if _NUMBER.fullmatch(bare):
            values.append(float(bare))
        elif not bare:
            values.append(quoted.replace('""', '"'))
    if values[:2] != ["ooTextFile", "TextGrid"]:
        raise InputError(cues.path, "line 1", "expected a TextGrid of Praat, as text")
    tiers = _tiers(cues, values[5:])
    chosen = [tier for tier in tiers if "word" in tier[0].lower()] or tiers
    if len(chosen) != 1:
        names = listing([printable(name, 40) for name, _ in chosen]) or "none"
        message = f"expected one tier of words, found {names}; name one `words`"
        raise InputError(cues.path, "", message)
    intervals = [item for item in chosen[0][1] if item[3].strip().lower() not in _NO_WORD]
    if any(" " in body.strip() for *_, body in intervals):
        for interval in intervals:
            cues.add(*interval)
    else:
        cues.add_single_words(intervals)


def _tiers(cues: Cues, values: list[str | float]) -> list[tuple[str, _Intervals]]:
    """Names and intervals of the tiers; tiers of points are passed over."""
    tiers, at = [], 0
    try:
        while at < len(values):
            kind, name, _, _, count = values[at : at + 5]
            at += 5
            width = 3 if kind == "IntervalTier" else 2
            if isinstance(name, float) or isinstance(count, str) or not 0 <= count <= len(values):
                raise ValueError
            rows = [values[at + width * i : at + width * (i + 1)] for i in range(int(count))]
            at += width * len(rows)
            if width == 3:
                tiers.append((name, [_interval(i, row) for i, row in enumerate(rows, 1)]))
    except ValueError:
        raise InputError(cues.path, "", "not a whole TextGrid: a tier breaks off") from None
    return tiers


def _interval(number: int, row: list[str | float]) -> tuple[str, float, float, str]:
    start_s, end_s, body = row
    if isinstance(start_s, str) or isinstance(end_s, str) or not isinstance(body, str):
        raise ValueError
    return f"interval {number}", start_s, end_s, body
