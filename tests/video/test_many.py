"""Several media in one call: whose transcript, whose table, what was done before."""

from __future__ import annotations

import csv
import dataclasses

import pyarrow.parquet
import pytest

from maven_jax.errors import UserError
from maven_jax.video.many import call_digest, transcript_of
from maven_jax.video.table import Part, check_name, write_table
from tests.support.predictions import prediction_of


@pytest.fixture
def parts(tmp_path):
    """The tables of two predictions, the second without label and smoothing."""
    first = prediction_of(40, label="untrained, all of it")
    second = dataclasses.replace(prediction_of(30), smoothed=None)
    first.to_csv(tmp_path / "a.csv")
    second.to_csv(tmp_path / "b_face2.csv")
    return [Part("=a.mp4", "", tmp_path / "a.csv"), Part("b.mp4", "2", tmp_path / "b_face2.csv")]


def test_one_table_has_the_rows_of_all(parts, tmp_path):
    write_table(parts, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == ["'=a.mp4"] * 40 + ["b.mp4"] * 30
    assert [row["label"] for row in rows if row["label"]] == ["untrained, all of it"]
    with parts[1].path.open() as file:
        for row, expected in zip(rows[40:], csv.DictReader(file)):
            assert row == row | expected | {"face": "2", "valence_smoothed": ""}


def test_parquet_has_the_same_with_types(parts, tmp_path):
    write_table(parts, tmp_path / "all.csv")
    write_table(parts, tmp_path / "all.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "all.parquet")
    with (tmp_path / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert table.column_names == list(rows[0])
    assert str(table.schema.field("frame").type) == "int64"
    assert str(table.schema.field("face_found").type) == "bool"
    for found, row in zip(table.to_pylist(), rows):
        assert (found["frame"], found["face_found"]) == (
            int(row["frame"]),
            row["face_found"] == "1",
        )
        assert found["video"] == row["video"].removeprefix("'")
        if row["valence_smoothed"]:
            assert found["valence_smoothed"] == pytest.approx(float(row["valence_smoothed"]))
        else:
            assert found["valence_smoothed"] is None
    with pytest.raises(UserError, match=r"expected a name that ends in \.csv or \.parquet"):
        check_name(tmp_path / "all.xlsx")


def test_a_transcript_is_found_by_its_name(tmp_path):
    for name in ("a.txt", "a.srt", "b.en.vtt", "c.en.vtt", "c.de.vtt", "ab.json"):
        (tmp_path / name).write_text("")
    clip = tmp_path / "clips" / "a.mp4"
    assert transcript_of(clip, tmp_path) == tmp_path / "a.srt"
    assert transcript_of(clip.with_name("b.mp4"), tmp_path) == tmp_path / "b.en.vtt"
    assert transcript_of(clip.with_name("d.mp4"), tmp_path) is None
    assert transcript_of(clip, tmp_path / "a.txt") == tmp_path / "a.txt"
    with pytest.raises(UserError, match=r"several transcripts of c: c\.de\.vtt, c\.en\.vtt"):
        transcript_of(clip.with_name("c.mp4"), tmp_path)


def test_another_call_or_another_file_is_told_apart(tmp_path):
    (tmp_path / "a").write_text("1")
    first = call_digest({"smooth": None}, tmp_path / "a", None)
    assert call_digest({"smooth": None}, tmp_path / "a", None) == first
    assert call_digest({"smooth": (3, 5)}, tmp_path / "a", None) != first
    (tmp_path / "a").write_text("2")
    assert call_digest({"smooth": None}, tmp_path / "a", None) != first
