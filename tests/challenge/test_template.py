"""The challenge's file: what is right passes, and every fault is named with its line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from maven_jax.__main__ import main
from maven_jax.challenge.template import (
    HEADER,
    check_submission,
    labelled_videos,
    read_template,
    write_submission,
)
from maven_jax.errors import UserError

# Two faces of one video, frames that do not begin at 1, and videos that take turns.
LOCATIONS = [
    *(f"12-24-1920x1080_left/{i:05d}.jpg" for i in range(1, 6)),
    *(f"12-24-1920x1080_right/{i:05d}.jpg" for i in range(3, 6)),
    *(f"video 7/{i:05d}.jpg" for i in range(1, 4)),
]


@pytest.fixture
def template_file(tmp_path) -> Path:
    path = tmp_path / "template.txt"
    path.write_text("\n".join(["image_location", *LOCATIONS]) + "\n")
    return path


@pytest.fixture
def template(template_file):
    return read_template(template_file)


@pytest.fixture
def whole(template, tmp_path) -> list[str]:
    """The lines of a faultless submission."""
    values = np.linspace(-1, 1, 2 * len(template)).reshape(-1, 2)
    write_submission(tmp_path / "whole.csv", template, values)
    return (tmp_path / "whole.csv").read_text().splitlines()


def test_what_is_written_is_the_template_row_by_row(template, whole, tmp_path):
    assert whole[0] == HEADER
    assert [line.split(",")[0] for line in whole[1:]] == LOCATIONS
    assert whole[1] == f"{LOCATIONS[0]},-1.000000,-0.904762"
    checked = check_submission(tmp_path / "whole.csv", template)
    assert checked.faults == []
    wanted = np.linspace(-1, 1, 2 * len(template)).reshape(-1, 2)
    np.testing.assert_allclose(checked.values, wanted, atol=5e-7)
    with pytest.raises(ValueError, match="not in"):
        write_submission(tmp_path / "nan.csv", template, np.full((len(template), 2), np.nan))
    assert not list(tmp_path.glob("nan*"))


def swapped(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[3], lines[2], *lines[4:]]


def edited(number: int, text: str) -> Callable[[list[str]], list[str]]:
    """Replaces the values of line `number` (from 1)."""

    def edit(lines: list[str]) -> list[str]:
        location = lines[number - 1].split(",")[0]
        return [*lines[: number - 1], f"{location},{text}", *lines[number:]]

    return edit


def renamed(number: int, location: str) -> Callable[[list[str]], list[str]]:
    def edit(lines: list[str]) -> list[str]:
        values = lines[number - 1].split(",", 1)[1]
        return [*lines[: number - 1], f"{location},{values}", *lines[number:]]

    return edit


# Name -> how a faultless file's lines are broken, the line that is named, and words of the reason.
BROKEN: dict[str, tuple[Callable[[list[str]], list[str]], int, str]] = {
    "missing row": (
        lambda x: [*x[:3], *x[5:]],
        0,
        "no row '12-24-1920x1080_left/00003.jpg', it belongs behind line 3 (and 1 more)",
    ),
    "missing first row": (lambda x: [x[0], *x[2:]], 0, "it belongs behind line 1"),
    "extra row": (
        lambda x: [*x[:6], "12-24-1920x1080_left/00006.jpg,0,0", *x[6:]],
        7,
        "'12-24-1920x1080_left/00006.jpg' is not in the template",
    ),
    "wrong order": (swapped, 4, "left/00002.jpg' behind '12-24-1920x1080_left/00003.jpg': not the"),
    "wrong order of videos": (
        lambda x: [x[0], *x[9:], *x[1:9]],
        5,
        "'12-24-1920x1080_left/00001.jpg' behind 'video 7/00003.jpg'",
    ),
    "duplicate": (lambda x: [*x[:5], x[3], *x[5:]], 6, "is in line 4 too"),
    "not a number at all": (edited(4, "nan,0.1"), 4, "valence is 'nan'"),
    "infinity": (edited(4, "0.1,-INF"), 4, "arousal is '-INF'"),
    "out of range": (edited(8, "0.5,1.0001"), 8, "arousal '1.0001' is outside [-1, 1]"),
    "the mark of no annotation": (edited(2, "-5,-5"), 2, "valence '-5' is outside [-1, 1]"),
    "wrong header": (lambda x: ["image,v,a", *x[1:]], 1, "the header is 'image,v,a', not"),
    "swapped columns": (
        lambda x: ["image_location,arousal,valence", *x[1:]],
        1,
        "not image_location,valence,arousal; its columns are swapped",
    ),
    "no header": (lambda x: x[1:], 1, "is missing: this is a row"),
    "too few columns": (edited(3, "0.5"), 3, "2 columns instead of 3"),
    "too many columns": (edited(3, "0.5,0.5,"), 3, "4 columns instead of 3"),
    "semicolons": (
        lambda x: [x[0], *(line.replace(",", ";") for line in x[1:])],
        2,
        "1 column instead of 3",
    ),
    "not a number": (edited(5, "0.1,high"), 5, "arousal 'high' is not a number"),
    "a Python number": (edited(5, "1_0e-3,0"), 5, "valence '1_0e-3' is not a number"),
    "empty cell": (edited(5, ",0.1"), 5, "valence is missing"),
    "wrong video": (
        renamed(10, "video 8/00001.jpg"),
        10,
        "'video 8/00001.jpg': no such video in the template",
    ),
    "video without side": (
        renamed(2, "12-24-1920x1080/00001.jpg"),
        2,
        "no such video in the template",
    ),
    "other digits": (
        renamed(2, "12-24-1920x1080_left/1.jpg"),
        2,
        "'12-24-1920x1080_left/1.jpg' is called '12-24-1920x1080_left/00001.jpg' in the template",
    ),
    "spaces behind commas": (edited(3, " 0.5,0.5"), 3, "spaces around valence '0.5'"),
    "space at the end": (edited(3, "0.5,0.5 "), 3, "spaces around arousal '0.5'"),
    "two headers": (lambda x: [*x[:4], x[0], *x[4:]], 5, "the header among the rows"),
    "spaces": (renamed(3, " 12-24-1920x1080_left/00002.jpg"), 3, "spaces around"),
    "blank line": (lambda x: [*x[:4], "", *x[4:]], 5, "a blank line"),
    "blank line at the end": (lambda x: [*x, ""], 13, "a blank line"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_named_with_its_line(name, whole, template, tmp_path):
    edit, line, reason = BROKEN[name]
    path = tmp_path / "broken.csv"
    path.write_text("\n".join(edit(whole)) + "\n")
    faults = check_submission(path, template).faults
    found = [f for f in faults if f.line == line and reason in str(f)]
    assert found, [str(f) for f in faults]
    place = f"line {line}: " if line else ""
    assert str(found[0]).startswith(place)


def test_faults_of_bytes_are_named(whole, template, tmp_path):
    path = tmp_path / "broken.csv"
    text = "\n".join(whole) + "\n"

    def faults(data: bytes) -> list[str]:
        path.write_bytes(data)
        return [str(f) for f in check_submission(path, template).faults]

    assert faults(text.encode()) == []
    assert faults(b"") == ["the file is empty"]
    assert faults(HEADER.encode() + b"\n")[0] == "line 1: no rows behind the header"
    (bom,) = faults(b"\xef\xbb\xbf" + text.encode())
    assert bom.startswith("line 1: a byte order mark (BOM)")
    (crlf,) = faults(text.replace("\n", "\r\n").encode())
    assert crlf == r"line 1: a Windows line end (CRLF): expected \n (and 11 more)"
    (cut,) = faults(text[:-3].encode())
    assert cut.startswith("line 12: no line's end behind 'video 7/00003.jpg,0.904762,1.0000'")
    (byte,) = faults(text.encode().replace(b"video 7/00002.jpg,", b"video 7/00002.jpg,\xff", 1))[:1]
    assert byte.startswith("line 11: byte 0xff is not UTF-8 text")


def test_a_fault_is_told_once(whole, template, tmp_path):
    """What is wrong with a row's columns or digits says nothing about its place or its numbers."""
    path = tmp_path / "broken.csv"
    for name, kinds in (("other digits", 1), ("two headers", 1), ("too many columns", 1)):
        path.write_text("\n".join(BROKEN[name][0](whole)) + "\n")
        assert len(check_submission(path, template).faults) == kinds, name
    path.write_text("\n".join([whole[0], *(f"{i},{x}" for i, x in enumerate(whole[1:]))]) + "\n")
    columns, missing = (str(f) for f in check_submission(path, template).faults)
    assert columns.startswith("line 2: 4 columns instead of 3: '0,12-24")
    assert missing.startswith("no row")


def test_equal_faults_are_counted_and_all_kinds_are_told_at_once(whole, template, tmp_path):
    lines = [f"{line.split(',')[0]},2,nan" for line in whole[1:-1]]
    path = tmp_path / "broken.csv"
    path.write_text("\n".join(["x", *lines]) + "\n")
    assert [str(f) for f in check_submission(path, template).faults] == [
        "line 1: the header is 'x', not image_location,valence,arousal",
        "line 2: arousal is 'nan' (and 9 more)",
        "line 2: valence '2' is outside [-1, 1] (and 9 more)",
        "no row 'video 7/00003.jpg', it belongs behind line 11",
    ]


def test_templates_are_read_as_organisers_write_them_and_others_refused(tmp_path):
    path = tmp_path / "template.csv"
    path.write_bytes(
        b"\xef\xbb\xbfimage_location,valence,arousal\r\na/00002.jpg,,\r\na/00001.jpg,0,0\r\n\r\n"
    )
    template = read_template(path)
    assert template.locations == ["a/00002.jpg", "a/00001.jpg"]
    assert template.frames.tolist() == [1, 0]
    for text, reason in (
        ("", "no rows"),
        ("image_location\n", "no rows"),
        ("image_location\nvideo,0,0\n", "line 2: 'video' is not <video>/00001.jpg"),
        ("a/00000.jpg\n", "line 1: 'a/00000.jpg' is not"),
        ("a/1.jpg\nb/1.jpg\na/1.jpg\n", "line 3: 'a/1.jpg' is in line 1 too"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=reason):
            read_template(path)


def test_rows_are_scored_where_there_are_labels(template):
    """Against frames by their numbers; rows without a value, or behind the labels, do not count."""
    targets = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    annotated = np.array([True, True, False, True])
    values = np.full((len(template), 2), 0.25)
    rows = template.rows["12-24-1920x1080_left"]
    values[rows[:4]] = targets
    values[rows[1]] = np.nan
    (track,) = labelled_videos(
        template,
        values,
        {"12-24-1920x1080_left": (targets, annotated), "other": (targets, annotated)},
    )
    assert track.target_mask.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(track.predictions[[0, 3]], targets[[0, 3]])
    np.testing.assert_array_equal(track.targets[[0, 3]], targets[[0, 3]])
    right = template.rows["12-24-1920x1080_right"]
    (track,) = labelled_videos(template, values, {"12-24-1920x1080_right": (targets, annotated)})
    assert len(right) == 3
    assert track.targets.tolist() == [[0, 0], targets[3].tolist()]  # frames 3 and 4, from 1


def test_the_command_checks_a_file_of_others(whole, template_file, tmp_path, capsys):
    annotations = tmp_path / "labels" / "Validation_Set"
    annotations.mkdir(parents=True)
    rows = "".join(f"{v},{v}\n" for v in np.linspace(-1, 1, 5))
    (annotations / "12-24-1920x1080_left.txt").write_text("valence,arousal\n" + rows)
    words = ["submit", "--template", str(template_file), "--check"]
    labels = ["--annotations", str(tmp_path / "labels")]
    assert main([*words, str(tmp_path / "whole.csv"), *labels]) == 0
    out = capsys.readouterr().out
    assert "as the template wants it, 11 rows" in out
    assert "whole.csv on the annotated rows" in out
    (tmp_path / "broken.csv").write_text("\n".join(whole[:-1]) + "\n")
    assert main([*words, str(tmp_path / "broken.csv")]) == 2
    out = capsys.readouterr().out
    assert "broken.csv: no row 'video 7/00003.jpg', it belongs behind line 11" in out
    assert "nothing to score" in out
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for wrong, message in (
        (["submit", "--template", "t"], "give --workdir W and --out FILE"),
        ([*words, "f", "--out", "o"], "--check FILE goes without --workdir"),
        ([*words, str(tmp_path / "no.csv")], "no.csv: no such file"),
        ([*words, str(tmp_path / "whole.csv"), "--annotations", "no"], "no: no such folder"),
        ([*words, str(pipe)], "pipe: not a regular file"),
        ([*words[:1], "--template", "no.csv", "--check", "f"], "no.csv: no such file"),
    ):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err
