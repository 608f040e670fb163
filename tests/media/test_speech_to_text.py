"""Recognising speech window by window, and what is said when that cannot be done."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
import transformers

from maven_jax.errors import UserError
from maven_jax.media.sound import open_audio
from maven_jax.media.speech_to_text import in_windows, transcribe
from maven_jax.media.transcripts import Segment
from tests.support import corpora


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


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A Whisper model as transformers saves it: tiny, with random weights and letters for words."""
    folder = tmp_path_factory.mktemp("whisper")
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 324))]
    names = [*letters, "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.WhisperTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    marks = ["startoftranscript", "en", "transcribe", "translate", "startoflm", "startofprev"]
    marks = [f"<|{mark}|>" for mark in (*marks, "nospeech", "notimestamps")]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.add_tokens([f"<|{i * 0.02:.2f}|>" for i in range(1501)])
    begin, end, untimed = tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"]
    )
    sizes = dict(d_model=16, encoder_layers=1, decoder_layers=1, max_target_positions=64)
    heads = dict(encoder_attention_heads=2, decoder_attention_heads=2)
    torch.manual_seed(0)
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer),
        decoder_start_token_id=begin,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        **sizes,
        **heads,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        **dict(decoder_start_token_id=begin, eos_token_id=end, pad_token_id=end, max_length=40),
        **dict(no_timestamps_token_id=untimed, is_multilingual=False),
    )
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor()
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def test_a_whisper_model_in_a_folder_listens_to_the_whole_sound(sound, whisper):
    found = transcribe(sound, whisper)
    assert found  # what random weights hear
    assert all(0 <= s.start_s < s.end_s <= 70.0 and s.text for s in found)
    assert found[-1].start_s > 30  # later windows are on the clock of the whole sound


def test_what_is_missing_is_said_in_one_line(sound, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such folder; --asr takes"):
        transcribe(sound, tmp_path / "none")
    with pytest.raises(UserError, match="no Whisper model"):
        transcribe(sound, tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="pip install torch"):
        transcribe(sound, tmp_path)
