"""Transcripts: four formats, one result; faults are named by line or segment."""

from __future__ import annotations

import json

import pytest

from maven_jax.media.problems import InputError
from maven_jax.media.transcripts import Segment, Word, parse_transcript, read_transcript

TWO = (Segment(0.0, 2.5, "hello there"), Segment(62.0, 3723.25, "and bye"))


@pytest.fixture
def write(tmp_path):
    def write(suffix: str, text: str):
        path = tmp_path / f"video{suffix}"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".txt", "[0.00s - 2.50s] hello there\n\n[62.00s - 3723.25s] and bye\n"),
        (".txt", "[0:00 --> 0:02.5]hello   there\r\n[00:01:02.0 --> 01:02:03.25] and bye"),
        (
            ".srt",
            "1\n00:00:00,000 --> 00:00:02,500\n<i>hello</i>\nthere\n\n"
            "2\n00:01:02,000 --> 01:02:03,250\nand bye\n",
        ),
        (
            ".vtt",
            "WEBVTT - a title\nKind: captions\n\nNOTE\n00:01 is no cue\n\nSTYLE\n::cue {}\n\n"
            "intro\n00:00.000 --> 00:02.500 align:start position:0%\n<v Ann>hello <00:01.000>there"
            "\n\n01:02.000 --> 01:02:03.250\n<c.loud>and</c> bye\n",
        ),
        (
            ".json",
            '[{"start": 0, "end": 2.5, "text": " hello there"},'
            ' {"start": 62.0, "end": 3723.25, "text": "and bye"}]',
        ),
    ],
)
def test_formats(write, suffix, text):
    found = parse_transcript(write(suffix, text))
    assert found.segments == TWO
    assert all("CRLF" in fix.message for fix in found.fixes)


def test_whisper_json_with_words(write):
    words = [
        {"word": " hello", "start": 0.0, "end": 0.4, "probability": 0.9},
        {"word": " there", "start": 0.5, "end": 1.0},
    ]
    data = {"language": "en", "segments": [{"id": 0, "start": 0, "end": 2.5, "words": words}]}
    (segment,) = read_transcript(write(".json", json.dumps(data)))
    assert segment.text == "hello there"
    assert segment.words == (Word(0.0, 0.4, "hello"), Word(0.5, 1.0, "there"))


def test_words_without_times_leave_the_segment(write):
    data = [{"start": 0, "end": 1, "text": "in 1984", "words": [{"word": "1984"}]}]
    found = parse_transcript(write(".json", json.dumps(data)))
    assert found.segments == (Segment(0.0, 1.0, "in 1984"),)
    assert (found.fixes[0].place, found.fixes[0].severity) == ("segment 1 word 1", "repaired")


def test_entities_and_comparisons_survive_tag_removal(write):
    text = "WEBVTT\n\n00:00.000 --> 00:01.000\n1 &lt; 2 &amp; 3 < 4\n"
    (segment,) = read_transcript(write(".vtt", text))
    assert segment.text == "1 < 2 & 3 < 4"


def test_disorder_is_sorted_and_overlap_is_stated(write):
    text = "[2.0s - 3.0s] second\n[0.0s - 2.4s] first\n[4s - 4s] \n"
    found = parse_transcript(write(".txt", text))
    assert [s.text for s in found.segments] == ["first", "second"]
    said = {(fix.severity, fix.place, fix.message.split(":")[0]) for fix in found.fixes}
    assert said == {
        ("repaired", "line 2", "out of order"),
        ("note", "line 1", "1 overlapping segments"),
        ("note", "line 3", "1 segments without words ignored"),
    }


def test_empty_transcript_has_no_segments(write):
    found = parse_transcript(write(".txt", "\n"))
    assert found.segments == ()
    assert found.fixes[0].message == "no words"


@pytest.mark.parametrize(
    ("suffix", "text", "place", "message"),
    [
        (".txt", "[0s - 1s] a\n[3.0s - 2.0s] b\n", "line 2", "reversed times: ends at 2 s"),
        (".txt", "hello\n", "line 1", "expected `[0.00s - 2.50s] words`"),
        (".txt", "[0s - 1s] a\n[x - 2s] b\n", "line 2", "expected"),
        (".txt", "[0s - 1500000s] a\n", "line 1", "milliseconds?"),
        (".txt", f"[0s - 1s] {'a' * 100_001}", "line 1", "too many for a segment"),
        (".srt", "1\n00:00:03,0 --> 00:00:01,0\nx\n", "line 2", "reversed"),
        (".srt", "1\n00:00:03 -> 00:00:01\nx\n", "line 1", "without a line of times"),
        (".srt", "1\nabc --> 00:00:01\nx\n", "line 2", "expected `start --> end`"),
        (".vtt", "00:00.000 --> 00:01.000\nx\n", "line 1", "WEBVTT"),
        (".vtt", "WEBVTT\n\nnot a cue\nat all\n", "line 3", "without a line of times"),
        (".json", '[\n{"start": 0,\n]', "line 3", "not JSON"),
        (".json", "[" * 100_000, "", "not usable JSON"),
        (".json", '{"text": "x"}', "", "segments"),
        (".json", "[1]", "segment 1", "expected {start, end, text}"),
        (".json", '[{"start": 0, "text": ""}]', "segment 1", "'end' must be a number"),
        (".json", '[{"start": "0", "end": 1}]', "segment 1", "'start' must be a number"),
        (".json", '[{"start": true, "end": 1}]', "segment 1", "'start' must be a number"),
        (".json", '[{"start": NaN, "end": 1}]', "segment 1", "finite"),
        (".json", '[{"start": 0, "end": 1e999}]', "segment 1", "finite"),
        (".json", f'[{{"start": 0, "end": 1{"0" * 400}}}]', "segment 1", "finite"),
        (".json", f'[{{"start": 0, "end": 1{"0" * 5000}}}]', "", "not usable JSON"),
        (".json", '[{"start": -1, "end": 1}]', "segment 1", "negative"),
        (".json", '[{"start": 0, "end": 1, "text": 5}]', "segment 1", "'text'"),
        (
            ".json",
            '[{"start": 0, "end": 1, "words": [{"word": "a", "start": 1, "end": 0}]}]',
            "segment 1 word 1",
            "reversed",
        ),
        (".doc", "x", "", "not a transcript"),
    ],
)
def test_faults_are_named(write, suffix, text, place, message):
    with pytest.raises(InputError) as caught:
        read_transcript(write(suffix, text))
    assert caught.value.place == place
    assert message in caught.value.message
    assert "\n" not in str(caught.value)


def test_halves_of_characters_are_replaced_and_counted(write):
    """JSON can name them one by one; no tokenizer takes them and no file can hold them."""
    word = '{"start": 0, "end": 1, "word": "\\udfff!"}'
    text = f'[{{"start": 0, "end": 1, "text": "a \\ud800\\ud83d\\ude00 b", "words": [{word}]}}]'
    transcript = parse_transcript(write(".json", text))
    (segment,) = transcript.segments
    assert segment.text == "a \ufffd\U0001f600 b"
    assert segment.words[0].text == "\ufffd!"
    assert [fix.place for fix in transcript.fixes] == ["segment 1 word 1", "segment 1"]
    assert transcript.fixes[0].message.startswith("1 lone surrogates")


def test_hostile_sizes_end_soon(write, monkeypatch):
    """No pattern may take quadratic time, and nothing is read beyond the limits."""
    for text in ("[" + " " * 500_000, "<" * 500_000, "[" + "1" * 500_000, "[1:" * 100_000):
        with pytest.raises(InputError):
            read_transcript(write(".txt", text))
        vtt = f"WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n"
        with pytest.raises(InputError, match="too many for a segment"):
            read_transcript(write(".vtt", vtt))
    monkeypatch.setattr("maven_jax.media.transcripts.MAX_SEGMENTS", 2)
    with pytest.raises(InputError, match="3 segments are too many"):
        read_transcript(write(".txt", "[0s - 1s] a\n" * 3))
    monkeypatch.setattr("maven_jax.media.transcripts.MAX_BYTES", 10)
    with pytest.raises(InputError, match="too many for a transcript"):
        read_transcript(write(".txt", "[0s - 1s] a\n" * 3))
