"""Letters beyond DejaVu Sans: drawn by a font of the machine that has them, otherwise counted."""

from __future__ import annotations

import dataclasses

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import image
from matplotlib.font_manager import fontManager

from maven_jax.video.prediction import Word
from maven_jax.video.show.curve import plot_prediction
from maven_jax.video.show.letters import missing_letters
from tests.support.predictions import prediction_of

_LETTER = "𒀀"


@pytest.fixture
def font(tmp_path):
    """A font of one letter, a full block, that matplotlib knows for the time of the test."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "block"])
    builder.setupCharacterMap({ord(_LETTER): "block"})
    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 1000), (1000, 1000), (1000, 0)):
        (pen.lineTo if point != (0, 0) else pen.moveTo)(point)
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "block": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "block": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "One Letter", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "one.ttf")
    before = list(fontManager.ttflist)
    ours = matplotlib.get_data_path()
    fontManager.ttflist[:] = [entry for entry in before if entry.fname.startswith(ours)]
    yield tmp_path / "one.ttf"
    fontManager.ttflist[:] = before
    fontManager._findfont_cached.cache_clear()


def test_a_font_of_the_machine_draws_what_the_first_one_cannot(font, tmp_path):
    prediction = dataclasses.replace(
        prediction_of(), words=(Word(1.0, 2.0, 8 * _LETTER), Word(4.0, 5.0, "plain ✓ é\ufe0f"))
    )

    def ink() -> float:
        plot_prediction(prediction, tmp_path / "curve.png")
        pixels = image.imread(tmp_path / "curve.png")[..., :3]
        below = pixels[round(4.3 * 130) : -round(0.5 * 130), round(1.0 * 130) :]
        return float((below.mean(axis=-1) < 0.3).mean())

    boxes = ink()
    said = "1 letter is in no font of this machine (𒀀 U+12000): boxes in the PNG files"
    assert missing_letters(prediction).startswith(said)
    fontManager.addfont(font)
    assert missing_letters(prediction) == ""
    assert ink() > boxes + 0.01
    assert np.isfinite(boxes)
