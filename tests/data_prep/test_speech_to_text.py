"""Recognising speech window by window, and what is said when that cannot be done."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from data_prep.media import open_audio
from data_prep.speech_to_text import in_windows, transcribe
from data_prep.transcripts import Segment
from maven_jax.errors import UserError
from tests import corpora


@pytest.fixture
def sound(tmp_path):
    corpora.write_wav(tmp_path / "s.wav", 70.0)
    return open_audio(tmp_path / "s.wav")


def test_a_sentence_across_the_border_is_heard_again_as_a_whole(sound):
    heard = []

    def listen(samples: np.ndarray) -> list[Segment]:
        heard.append(len(samples) / 16000)
        length_s = heard[-1]
        return [Segment(1.0, 20.0, "whole"), Segment(length_s - 5, length_s, "until the end")]

    found = in_windows(sound, listen)
    # Windows begin at 0, at 25 (the sentence that was cut), and at 50.
    assert heard == [30.0, 30.0, 20.0]
    starts = [(s.start_s, s.text) for s in found]
    assert starts[:3] == [(1.0, "whole"), (26.0, "whole"), (51.0, "whole")]
    assert found[-1].end_s == pytest.approx(70.0)


def test_silence_gives_no_words(sound):
    assert in_windows(sound, lambda samples: [Segment(0.0, 30.0, "")]) == ()


def test_what_is_missing_is_said_in_one_line(sound, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such folder; --asr takes"):
        transcribe(sound, tmp_path / "none")
    with pytest.raises(UserError, match="no Whisper model"):
        transcribe(sound, tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        transcribe(sound, tmp_path)
