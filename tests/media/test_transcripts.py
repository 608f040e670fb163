"""Transcripts: four formats, one result; faults are named by line or segment."""

from __future__ import annotations

import json

import pytest
from praatio import textgrid
from praatio.utilities.constants import Interval, Point

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
        (".tsv", "start\tend\ttext\n0\t2500\thello there\n62000\t3723250\tand bye\n"),
        (
            ".srt",  # no empty lines, a style of Aegisub, cells of one line
            "1\n00:00:00,000 --> 00:00:02,500\n{\\an8}hello\nthere\n"
            "2\n00:01:02,000 --> 01:02:03,250\nand bye",
        ),
        (
            ".json",  # whisper.cpp
            '{"transcription": [{"offsets": {"from": 0, "to": 2500}, "text": " hello there"},'
            ' {"offsets": {"from": 62000, "to": 3723250}, "text": " and bye"}]}',
        ),
        (
            ".json",  # a Hugging Face pipeline
            '{"text": "", "chunks": [{"timestamp": [0.0, 2.5], "text": " hello there"},'
            ' {"timestamp": [62.0, 3723.25], "text": " and bye"}]}',
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
        (".txt", "[3.0s - 2.0s] b\n", "line 1", "reversed times: ends at 2 s"),
        (".txt", "hello\n", "line 1", "expected `[0.00s - 2.50s] words`"),
        (".txt", "[0s - 1s] a\n[x - 2s] b\nc\n", "line 2", "(and 1 more)"),
        (".tsv", "start,end,text\n0,1,a\n", "line 1", "Whisper's start, end, text"),
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
    monkeypatch.setattr("maven_jax.media.segments.MAX_SEGMENTS", 2)
    with pytest.raises(InputError, match="3 segments are too many"):
        read_transcript(write(".txt", "[0s - 1s] a\n" * 3))
    monkeypatch.setattr("maven_jax.media.transcripts.MAX_BYTES", 10)
    with pytest.raises(InputError, match="too many for a transcript"):
        read_transcript(write(".txt", "[0s - 1s] a\n" * 3))


@pytest.mark.parametrize(
    ("suffix", "text", "place"),
    [
        (".srt", "1\n-00:00:01,0 --> 00:00:01,0\nx\n\n2\n00:00:01,0 --> 00:00:02,0\na\n", "line 2"),
        (".vtt", "WEBVTT\n\n00:00.0 --> 00:01.0\na\n\nno cue\n\n", "line 6"),
        (".txt", "[0s - 1s] a\n[3.0s - 2.0s] b\n", "line 2"),
        (".json", '[{"start": 0, "end": 1, "text": "a"}, {"start": 2, "text": "b"}]', "segment 2"),
    ],
)
def test_a_faulty_cue_costs_itself_and_is_counted(write, suffix, text, place):
    transcript = parse_transcript(write(suffix, text))
    assert [segment.text for segment in transcript.segments] == ["a"]
    (fix,) = transcript.fixes
    assert (fix.severity, fix.place) == ("repaired", place)
    assert fix.message.startswith("1 segments left out: ")


ROLLING = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:01.750 align:start position:0%
 
hello<00:00:00.480><c> all</c><00:00:00.800><c> of you</c>

00:00:01.750 --> 00:00:01.760 align:start position:0%
hello all of you
 

00:00:01.760 --> 00:00:03.000 align:start position:0%
hello all of you
we<00:00:02.000><c> are</c><00:00:02.500><c> here</c>

00:00:03.000 --> 00:00:03.010 align:start position:0%
we are here
 
"""  # noqa: W293


def test_rolling_captions_count_once_with_the_times_of_their_words(write):
    first, second = parse_transcript(write(".vtt", ROLLING)).segments
    assert (first.start_s, first.end_s, first.text) == (0.16, 1.75, "hello all of you")
    assert second.text == "we are here"
    assert second.words == (Word(1.76, 2.0, "we"), Word(2.0, 2.5, "are"), Word(2.5, 3.0, "here"))


@pytest.mark.parametrize("blink", [True, False])
def test_rolling_captions_as_subrip_count_once(write, blink):
    lines, cues, at = ["one two", "three four", "five six", "seven"], [], 0.0
    for before, line in zip(["", *lines], lines):
        cues.append((at, at + 2, [before, line] if before else [line]))
        if blink:
            cues.append((at + 2, at + 2.01, [line]))
        at += 2.01 if blink else 1.5
    text = "".join(
        f"{i}\n00:00:{a:06.3f} --> 00:00:{b:06.3f}\n".replace(".", ",") + "\n".join(body) + "\n\n"
        for i, (a, b, body) in enumerate(cues, 1)
    )
    transcript = parse_transcript(write(".srt", text))
    assert [segment.text for segment in transcript.segments] == lines
    assert "lines of rolling captions" in transcript.fixes[0].message


def test_what_people_say_twice_stays(write):
    text = "1\n00:00:00,0 --> 00:00:01,0\nNo.\n\n2\n00:00:01,0 --> 00:00:02,0\nNo.\n\n"
    text += "3\n00:00:02,0 --> 00:00:03,0\nNo.\nWhy?\n\n4\n00:00:05,0 --> 00:00:06,0\nGo.\n"
    text += "\n5\n00:00:07,0 --> 00:00:08,0\nI do.\n\n6\n00:00:08,0 --> 00:00:09,0\nWell.\n"
    assert len(parse_transcript(write(".srt", text)).segments) == 6


def test_the_last_chunk_of_a_pipeline_may_have_no_end(write):
    chunks = [{"timestamp": [0.0, 2.0], "text": " a b"}, {"timestamp": [2.0, None], "text": " c d"}]
    transcript = parse_transcript(write(".json", json.dumps({"chunks": chunks})))
    assert transcript.segments[1] == Segment(2.0, 2.2, "c d")
    assert transcript.fixes[0].message == "no end: 2.20 s by its length"
    told = parse_transcript(write(".json", json.dumps({"chunks": chunks, "duration": 3.5})))
    assert told.segments[1].end_s == 3.5


HELLO = (Word(0.0, 0.5, "Hello."), Word(0.5, 1.0, "You"), Word(1.0, 1.5, "there"))


@pytest.mark.parametrize(
    "data",
    [
        {"words": [{"word": w.text, "start": w.start_s, "end": w.end_s} for w in HELLO]},
        [{"word": w.text, "start": w.start_s, "end": w.end_s} for w in HELLO],
        {"result": [{"word": w.text, "start": w.start_s, "end": w.end_s} for w in HELLO]},
        {"chunks": [{"text": " " + w.text, "timestamp": [w.start_s, w.end_s]} for w in HELLO]},
        {
            "segments": [
                {"start": 0, "end": 0.5, "text": "Hello."},
                {"start": 0.5, "end": 1.5, "text": "You there"},
            ],
            "words": [{"word": w.text, "start": w.start_s, "end": w.end_s} for w in HELLO],
        },
        {
            "segments": [
                {"start": a[0].start_s, "end": a[-1].end_s, "text": "", "words": [
                    {"text": w.text, "start": w.start_s, "end": w.end_s, "confidence": 1} for w in a
                ]}
                for a in (HELLO[:1], HELLO[1:])
            ]
        },
        {
            "words": [
                {"text": w.text, "start": 1000 * w.start_s, "end": 1000 * w.end_s} for w in HELLO
            ]
        },
        {
            "transcription": [
                {
                    "offsets": {"from": 1000 * a[0].start_s, "to": 1000 * a[-1].end_s},
                    "text": " ".join(w.text for w in a),
                    "tokens": [{"text": "[_BEG_]", "offsets": {"from": 0, "to": 0}}] + [
                        {"text": p, "offsets": {"from": 1000 * w.start_s, "to": 1000 * w.end_s}}
                        for w in a for p in (" " + w.text[:2], w.text[2:])
                    ],
                }
                for a in (HELLO[:1], HELLO[1:])
            ]
        },
        {"results": {"channels": [{"alternatives": [{"words": [
            {"word": w.text.lower(), "punctuated_word": w.text, "start": w.start_s, "end": w.end_s}
            for w in HELLO
        ]}]}]}},
        {"results": {"items": [
            {"type": kind, "start_time": f"{w.start_s}", "end_time": f"{w.end_s}",
             "alternatives": [{"content": text}]}
            for w in HELLO for kind, text in (
                ("pronunciation", w.text.strip(".")),
                *([("punctuation", ".")] if w.text.endswith(".") else []),
            )
        ]}},
        {"results": [{"alternatives": [{"words": [
            {"word": w.text, "startTime": f"{w.start_s}s", "endTime": f"{w.end_s}s"} for w in part
        ]}]} for part in (HELLO[:1], HELLO[1:])]},
    ],
)  # fmt: skip
def test_words_in_whatever_form_become_sentences(write, data):
    first, second = read_transcript(write(".json", json.dumps(data)))
    assert (first.text, first.words) == ("Hello.", HELLO[:1])
    assert (second.text, second.words) == ("You there", HELLO[1:])
    assert (second.start_s, second.end_s) == (0.5, 1.5)


def test_subtitles_of_another_encoding_are_read_by_their_mark_or_named(write, tmp_path):
    text = "1\n00:00:00,0 --> 00:00:01,0\nça va\n"
    path = tmp_path / "a.srt"
    path.write_bytes(text.encode("utf-16"))
    assert read_transcript(path)[0].text == "ça va"
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(InputError, match=r"line 3: byte 0xe7 .*iconv -f cp1252 -t utf-8"):
        read_transcript(path)


LONG_TEXTGRID = (
    """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "Ann - words"
        xmin = 0
        xmax = 2
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = "say"
        intervals [2]:
            xmin = 0.25
            xmax = 1
            text = ""
        intervals [3]:
            xmin = 1
            xmax = 2
            text = """
    + '"""no"""'
    + """
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 2
        points: size = 1
        points [1]:
            number = 0.5
            mark = "click"
    item [3]:
        class = "IntervalTier"
        name = "Ann - phones"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2
            text = "s"
"""
)


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
@pytest.mark.parametrize("blanks", [True, False])
def test_the_words_of_a_textgrid_that_another_library_wrote(tmp_path, form, blanks):
    grid = textgrid.Textgrid()
    said = [Interval(0, 0.25, "say"), Interval(1, 2, '"no"')]
    grid.addTier(textgrid.IntervalTier("Ann - words", said, 0, 2))
    grid.addTier(textgrid.PointTier("clicks", [Point(0.5, "click")], 0, 2))
    grid.addTier(textgrid.IntervalTier("Ann - phones", [Interval(0, 2, "s")], 0, 2))
    grid.save(str(tmp_path / "a.TextGrid"), form, includeBlankSpaces=blanks)
    (one,) = read_transcript(tmp_path / "a.TextGrid")
    assert one.words == (Word(0, 0.25, "say"), Word(1, 2, '"no"'))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LONG_TEXTGRID.replace("words", "a"), "expected one tier of words, found Ann - a, Ann"),
        (LONG_TEXTGRID[:-80], "a tier breaks off"),
        (LONG_TEXTGRID.replace("intervals: size = 3", "size = 9e9"), "a tier breaks off"),
        ("words\n", "line 1: expected a TextGrid"),
    ],
)  # fmt: skip
def test_a_textgrid_without_words_is_refused_in_one_line(write, text, message):
    with pytest.raises(InputError, match=message):
        read_transcript(write(".TextGrid", text))
