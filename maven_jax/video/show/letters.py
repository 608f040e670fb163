"""Fonts for all letters of a picture: those of this machine, found by what they can draw."""

from __future__ import annotations

import functools
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.font_manager import FontEntry, fontManager
from matplotlib.ft2font import FT2Font

from maven_jax.errors import listing
from maven_jax.video.prediction import VideoPrediction

_FIRST = "DejaVu Sans"  # comes with matplotlib
# Where several fonts of a machine have a letter, these look best; any other is better than none.
_LIKED = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Arial Unicode MS",
    "Noto Emoji",
    "Symbola",
)
# They choose how the letter before them looks, and have no shape.
_SELECTORS = range(0xFE00, 0xFE10)
# Of the letters that no font has, so many are named.
_NAMED = 5

Draw = Callable[[VideoPrediction, Path], None]


def with_all_letters(draw: Draw) -> Draw:
    """Lets a function draw texts with every font of this machine that they need."""

    @functools.wraps(draw)
    def drawn(prediction: VideoPrediction, path: Path) -> None:
        fonts, _ = _fonts_for(_needed(prediction), len(fontManager.ttflist))
        with matplotlib.rc_context({"font.family": list(fonts)}), warnings.catch_warnings():
            # It would warn about every letter.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            draw(prediction, path)

    return drawn


def missing_letters(prediction: VideoPrediction) -> str:
    """A sentence about letters that pictures show as boxes; "" if there are none."""
    _, missing = _fonts_for(_needed(prediction), len(fontManager.ttflist))
    if not missing:
        return ""
    letters = [f"{chr(code)} U+{code:04X}" for code in sorted(missing)]
    count = "1 letter is" if len(letters) == 1 else f"{len(letters):,} letters are"
    return (
        f"{count} in no font of this machine ({listing(letters, _NAMED)}): boxes in the PNG files, "
        "not in the page; a font such as Noto Sans has them"
    )


def _needed(prediction: VideoPrediction) -> frozenset[int]:
    """What pictures of a prediction spell."""
    texts = (prediction.title, prediction.label, *(word.text for word in prediction.words))
    letters = {c for text in texts for c in text if c.isprintable()}
    # Halves of broken names are in no font on earth.
    return frozenset(
        ord(c) for c in letters if ord(c) not in _SELECTORS and unicodedata.category(c) != "Cs"
    )


@functools.lru_cache(maxsize=64)
def _fonts_for(letters: frozenset[int], known: int) -> tuple[tuple[str, ...], frozenset[int]]:
    """The fonts to draw letters with, the preferred one first, and the letters that none has.

    Args:
        letters: code points.
        known: how many fonts matplotlib knows; another number is another answer.
    """
    ours = Path(matplotlib.get_data_path())
    fonts, missing = [_FIRST], letters
    for entry in [e for e in fontManager.ttflist if e.name == _FIRST and e.weight == 400][:1]:
        missing = missing - _letters_of(entry.fname)
    # Those that come with matplotlib are for formulas, or draw a box for everything.
    others = {e.name: e for e in fontManager.ttflist if not Path(e.fname).is_relative_to(ours)}
    for entry in sorted(others.values(), key=_rank):
        if not missing:
            break
        if drawn := missing & _letters_of(entry.fname):
            fonts.append(entry.name)
            missing = missing - drawn
    return tuple(fonts), missing


def _rank(entry: FontEntry) -> tuple[int, str]:
    return (_LIKED.index(entry.name) if entry.name in _LIKED else len(_LIKED), entry.name)


@functools.cache
def _letters_of(path: str) -> frozenset[int]:
    """What a font can draw; nothing for one of pictures, which matplotlib cannot."""
    try:
        font = FT2Font(path)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
