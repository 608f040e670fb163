"""The result of `predict` as CSV, pandas, JSON and words for people."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maven_jax.errors import UserError
from maven_jax.video.prediction import VideoPrediction, Word
from tests.support.predictions import beside


@pytest.fixture
def prediction() -> VideoPrediction:
    """Three frames; the face is lost in the second, and the third shows nothing at all."""
    return VideoPrediction(
        name="clip.mp4",
        source=Path("videos/clip.mp4"),
        track="",
        frame=np.array([0, 1, 2]),
        time_s=np.array([0.0, 0.0333667, 0.1]),
        va=np.array([[0.5, -0.25], [0.25, 0.125], [np.nan, np.nan]], np.float32),
        smoothed=None,
        face_found=np.array([True, False, False]),
        face_confidence=np.array([0.875, 0, 0], np.float32),
        boxes=np.array([[1, 2, 30, 40], [np.nan] * 4, [np.nan] * 4], np.float32),
        observed={"visual": np.array([True, False, False]), "audio": np.array([True, True, False])},
        words=(Word(0.0, 0.05, "hello"),),
        contributions=None,
        label="",
        notes=("no face in 2 of 3 frames",),
        facts={"duration_s": 0.13, "real_time_factor": 2.0},
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_per_frame_with_the_containers_times(prediction, tmp_path):
    prediction.to_csv(tmp_path / "new" / "clip.csv")
    rows = rows_of(tmp_path / "new" / "clip.csv")
    assert list(rows[0]) == (
        ["frame", "time_s", "valence", "arousal", "face_found", "face_confidence", "modalities"]
    )
    assert [r["frame"] for r in rows] == ["0", "1", "2"]
    assert [r["time_s"] for r in rows] == ["0.000000", "0.033367", "0.100000"]
    assert [r["valence"] for r in rows] == ["0.500000", "0.250000", ""]
    assert [r["arousal"] for r in rows] == ["-0.250000", "0.125000", ""]
    assert [r["face_found"] for r in rows] == ["1", "0", "0"]
    assert rows[0]["face_confidence"] == "0.8750"
    assert [r["modalities"] for r in rows] == ["visual+audio", "audio", ""]


def test_smoothed_columns_stand_beside_the_raw_ones(prediction, tmp_path):
    smoothed = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    dataclasses.replace(prediction, smoothed=smoothed).to_csv(tmp_path / "clip.csv")
    row = rows_of(tmp_path / "clip.csv")[1]
    assert list(row)[2:6] == ["valence", "arousal", "valence_smoothed", "arousal_smoothed"]
    assert (row["valence"], row["valence_smoothed"]) == ("0.250000", "0.300000")


def test_calibrated_columns_stand_beside_the_raw_ones_and_are_drawn_in_bold(prediction, tmp_path):
    values = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], np.float32)
    both = dataclasses.replace(prediction, calibrated=values, calibration={"step": 3})
    both.to_csv(tmp_path / "clip.csv")
    row = rows_of(tmp_path / "clip.csv")[1]
    assert list(row)[2:6] == ["valence", "arousal", "valence_calibrated", "arousal_calibrated"]
    assert (row["valence"], row["valence_calibrated"]) == ("0.250000", "0.300000")
    assert both.bold == ("calibrated", values)
    assert prediction.bold[1] is prediction.va
    assert both.to_json()["calibration"] == {"step": 3}


def test_a_label_is_on_every_output(prediction, tmp_path):
    labelled = dataclasses.replace(prediction, label="untrained weights")
    labelled.to_csv(tmp_path / "clip.csv")
    assert [r["label"] for r in rows_of(tmp_path / "clip.csv")] == ["untrained weights", "", ""]
    assert "untrained weights" in labelled.summary()
    assert labelled.to_json()["label"] == "untrained weights"
    assert "label" not in prediction.columns()


def test_json_has_no_nan_and_everything_else(prediction):
    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = json.dumps(prediction.to_json(), allow_nan=False)
    back = json.loads(text, parse_constant=refuse)
    assert back["va"] == [[0.5, -0.25], [0.25, 0.125], None]
    assert back["boxes"] == [[1, 2, 30, 40], None, None]
    assert back["words"] == [{"start_s": 0.0, "end_s": 0.05, "text": "hello"}]
    assert back["observed"] == {"visual": [True, False, False], "audio": [True, True, False]}
    assert back["summary"]["num_predicted"] == 2
    assert back["summary"]["valence"]["mean"] == 0.375


def test_files_of_long_videos_are_written_in_pieces(prediction, tmp_path, monkeypatch):
    prediction.to_csv(tmp_path / "whole.csv")
    monkeypatch.setattr("maven_jax.video.prediction._ROWS", 2)
    prediction.to_csv(tmp_path / "pieces.csv")
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    prediction.write_json(tmp_path / "new" / "clip.json")
    assert json.loads((tmp_path / "new" / "clip.json").read_text()) == prediction.to_json()
    # What cannot be written leaves nothing behind.
    infinite = dataclasses.replace(prediction, facts={"fps": float("inf")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        infinite.write_json(tmp_path / "new" / "other.json")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["clip.json"]


def test_the_summary_tells_numbers_and_what_was_missing(prediction):
    text = prediction.summary()
    assert text.startswith("clip.mp4\n")
    assert "3 frames, 0.1 s; visual in 33%, audio in 67% of them" in text
    assert "valence +0.375 on average, from +0.25 to +0.50" in text
    assert text.endswith("no face in 2 of 3 frames")


def test_nothing_observed_is_said_not_averaged(prediction):
    nothing = dataclasses.replace(prediction, va=np.full((3, 2), np.nan, np.float32))
    assert "valence not predicted" in nothing.summary()
    assert nothing.to_json()["summary"]["arousal"] is None


def test_pandas_shows_the_same_table(prediction):
    frame = prediction.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(prediction.columns())
    assert frame["valence"].isna().tolist() == [False, False, True]


def test_without_pandas_it_says_what_to_install(prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        prediction.to_pandas()


def test_what_is_predicted_beside_stands_in_all_tables(prediction, tmp_path):
    both = dataclasses.replace(prediction, extra=beside(3))
    both.to_csv(tmp_path / "clip.csv")
    rows = rows_of(tmp_path / "clip.csv")
    assert list(rows[0])[4:8] == ["dominance", "expr_Calm", "expr_=Happy", "face_found"]
    assert [r["dominance"] for r in rows] == ["-1.000000", "0.000000", "1.000000"]
    assert [r["expr_Calm"] for r in rows] == ["0.750000", "0.750000", "0.250000"]
    value = both.to_json()
    assert value["extra"]["expr"]["labels"] == ["Calm", "=Happy"]
    assert value["extra"]["dominance"]["values"] == [[-1], [0], [1]]
    assert value["summary"]["extra"]["expr"]["shares"]["Calm"] == pytest.approx(2 / 3)
    assert "dominance +0.000 on average, from -1.00 to +1.00" in both.summary()
    assert "expr Calm in 67%, =Happy in 33%" in both.summary()
